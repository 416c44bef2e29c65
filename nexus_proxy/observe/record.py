"""What is known of a request when it is over, and who wants to hear of it.

Strategy: one value for all observers: the metrics and the log today, traces and webhooks tomorrow. Never a key, never a
prompt, never a text that a client chose, except the model's id where it is one of ours.
"""

from typing import Protocol

from nexus_proxy.core.wire.usage import Usage


class Record:
    """A request that is over. What was not found is None; from `exchanged` on it is of the exchange, if there was one.

    Built by position: keywords would double the cost of a record that every request makes.
    """

    __slots__ = (
        "account",
        "charge",
        "code",
        "duration_s",
        "end_state",
        "exchanged",
        "first_byte_s",
        "key_hint",
        "late",
        "method",
        "model",
        "provider",
        "request_id",
        "route",
        "status",
        "streamed",
        "usage",
        "usage_source",
    )

    def __init__(
        self,
        request_id: str,  # ours: nothing in it has to be escaped
        method: str,
        route: str | None,
        account: str | None,
        key_hint: str | None,
        model: str | None,
        provider: str | None,
        status: int,
        code: str | None,  # of our own errors
        duration_s: float,
        exchanged: bool = False,
        streamed: bool = False,
        end_state: str | None = None,
        usage_source: str | None = None,
        usage: Usage | None = None,
        charge: str | None = None,  # a decimal
        late: bool = False,  # it went out before its settlement was durable
        first_byte_s: float | None = None,
    ) -> None:
        self.request_id = request_id
        self.method = method
        self.route = route
        self.account = account
        self.key_hint = key_hint
        self.model = model
        self.provider = provider
        self.status = status
        self.code = code
        self.duration_s = duration_s
        self.exchanged = exchanged
        self.streamed = streamed
        self.end_state = end_state
        self.usage_source = usage_source
        self.usage = usage
        self.charge = charge
        self.late = late
        self.first_byte_s = first_byte_s


class Observer(Protocol):
    """Hears of each request once, when it is over. It must not wait, and must not raise."""

    def finished(self, record: Record) -> None:
        """Take in a request that is over."""
