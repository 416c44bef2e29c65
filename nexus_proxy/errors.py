"""Everything the world can do wrong, as one tree of exceptions.

Strategy: a leaf is one cause that somebody can act on. It carries what the client is told (status, code, type,
whether to retry); the boundary turns it into the one JSON shape. Our own bugs are assertions and have no leaf.
"""

from typing import ClassVar

SUSPENDED = "This account is suspended. Contact the operator."


class NexusError(Exception):
    """A fault with an answer. `retry` False sends `x-should-retry: false`; `close` ends the client's connection."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal_error"
    type: ClassVar[str] = "server_error"
    retry: ClassVar[bool] = True
    close: ClassVar[bool] = False

    def __init__(self, message: str, *, param: str | None = None, retry_after_ns: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after_ns = retry_after_ns


def leaves(root: type[NexusError]) -> list[type[NexusError]]:
    """Return the root and everything that inherits from it: each is a cause of its own, with its status and code."""
    return [root, *(leaf for child in root.__subclasses__() for leaf in leaves(child))]


# --- the request itself -------------------------------------------------------------------------------------------


class RequestError(NexusError):
    """The client sent something that cannot be served; sending it again changes nothing."""

    status = 400
    code = "invalid_parameter"
    type = "invalid_request_error"
    retry = False


class InvalidHttp(RequestError):
    """Bytes that are not an acceptable HTTP/1.1 request."""

    code = "invalid_http"
    close = True


class InvalidJson(RequestError):
    """The body is not one JSON object in UTF-8."""

    code = "invalid_json"


class InvalidParameter(RequestError):
    """A parameter has a wrong type or is out of its range; `param` names it."""


class UnsupportedParameter(RequestError):
    """A parameter that would change the provider's price or its prompt behind our back."""

    code = "unsupported_parameter"


class InvalidKey(RequestError):
    """Missing, malformed, unknown, revoked or expired: one body for all of them."""

    status = 401
    code = "invalid_api_key"


class InsufficientBalance(RequestError):
    """The balance cannot carry the hold, even with nothing else open."""

    status = 402
    code = "insufficient_balance"
    type = "insufficient_quota"


class BalanceHeld(RequestError):
    """The balance would do, but open requests hold it."""

    status = 402
    code = "balance_held"
    type = "insufficient_quota"
    retry = True


class AccountSuspended(RequestError):
    """An admin suspended the account."""

    status = 403
    code = "account_suspended"
    type = "permission_error"


class ModelNotFound(RequestError):
    """No such model, or one that this key may not use."""

    status = 404
    code = "model_not_found"


class NotFound(RequestError):
    """No such path."""

    status = 404
    code = "not_found"


class NoPath(NotFound):
    """A target that is no path, as `*`: behind such a head there may be anything."""

    close = True


class MethodNotAllowed(RequestError):
    """The path exists, the method does not."""

    status = 405
    code = "method_not_allowed"

    def __init__(
        self, message: str, *, param: str | None = None, retry_after_ns: int | None = None, allow: str = ""
    ) -> None:
        super().__init__(message, param=param, retry_after_ns=retry_after_ns)
        self.allow = allow  # the methods that the path takes


class NoTunnel(MethodNotAllowed):
    """CONNECT: behind such a head there may be anything."""

    close = True


class RequestTimeout(RequestError):
    """The client's headers or body did not arrive in time."""

    status = 408
    code = "request_timeout"
    retry = True
    close = True


class RequestTooLarge(RequestError):
    """The body is over the limit; what is left of it is not read."""

    status = 413
    code = "request_too_large"
    close = True


class UnsupportedMediaType(RequestError):
    """Not `application/json`, or an encoded body."""

    status = 415
    code = "unsupported_media_type"
    close = True


class HeadersTooLarge(RequestError):
    """A header line or their number is over the limit."""

    status = 431
    code = "headers_too_large"
    close = True


class RateLimited(RequestError):
    """Our own limit; `retry_after_ns` is true if nobody else is admitted meanwhile."""

    status = 429
    code = "rate_limit_exceeded"
    type = "rate_limit_error"
    retry = True


class ClientGone(NexusError):
    """The client left before an answer began. For the log and the ledger; nobody reads the answer."""

    status = 499
    code = "client_gone"
    retry = False
    close = True


class ConnectionFault(NexusError):
    """A fault of our own below the boundary; the connection is of no more use."""

    close = True


# --- the provider -------------------------------------------------------------------------------------------------


class UpstreamError(NexusError):
    """The provider, or the way to it, failed."""

    status = 502
    code = "upstream_broken"
    type = "upstream_error"
    retry = False


class UpstreamRefused(UpstreamError):
    """The provider found the request wrong: its 400, 422 or a refusal of the content."""

    status = 400
    code = "invalid_parameter"
    type = "invalid_request_error"


class UpstreamUnreachable(UpstreamError):
    """No connection: refused, no such host, TLS. The provider received nothing, so a retry is safe."""

    code = "upstream_unreachable"
    retry = True


class UpstreamBroken(UpstreamError):
    """The provider answered with something that is not an answer, or hung up on the whole request."""


class UpstreamAuth(UpstreamError):
    """The provider refused the operator's credential."""

    code = "upstream_auth"


class UpstreamModel(UpstreamError):
    """The provider does not know the model."""

    code = "upstream_model"


class UpstreamRateLimited(UpstreamError):
    """The provider's own rate limit."""

    status = 429
    code = "upstream_rate_limited"
    type = "rate_limit_error"
    retry = True


class UpstreamNoFunds(UpstreamError):
    """The operator's account with the provider is empty, in whatever disguise it says so."""

    status = 503
    code = "upstream_no_funds"


class UpstreamOverloaded(UpstreamError):
    """The provider has no capacity."""

    status = 503
    code = "upstream_overloaded"
    retry = True


class UpstreamTimeout(UpstreamError):
    """The provider did not connect, or sent no byte, in time."""

    status = 504
    code = "upstream_timeout"


# --- ourselves ----------------------------------------------------------------------------------------------------


class Overloaded(NexusError):
    """A limit of our own is reached: requests in flight to one provider, or bytes of request bodies."""

    status = 503
    code = "overloaded"


class ShuttingDown(NexusError):
    """The server is finishing what it began and takes nothing new."""

    status = 503
    code = "shutting_down"
    close = True


class LedgerUnavailable(NexusError):
    """The ledger cannot commit, so nothing may be sent upstream."""

    status = 503
    code = "ledger_unavailable"


# --- for operators and admins, never on the client's wire ---------------------------------------------------------


class ConfigError(Exception):
    """The configuration is wrong; the text names each key's path and what was expected."""


class LedgerError(Exception):
    """The ledger cannot be opened or is in use; the text says why and what to do."""


class Refused(Exception):
    """An admin's request that cannot be done, with the reason."""
