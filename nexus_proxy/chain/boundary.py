"""The outermost stage: an id for every request, one shape for every error, one line for every request.

Strategy: everything below raises; only here is it turned into an answer. What has already begun to answer cannot be
answered again, so its connection is closed instead.
"""

from aiohttp import web
from aiohttp.http import HttpVersion10, HttpVersion11
from aiohttp.typedefs import Handler

from nexus_proxy.answers import error_response, first_headers, new_request_id
from nexus_proxy.appkeys import PARTS, VISIT, Visit
from nexus_proxy.errors import ClientGone, InvalidHttp, MethodNotAllowed, NexusError, NotFound, ShuttingDown
from nexus_proxy.record import record_refused

_SPOKEN = (HttpVersion11, HttpVersion10)


@web.middleware
async def boundary(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer every request, whatever happens below."""
    request_id = new_request_id()
    headers = first_headers(request_id)
    parts = request.app[PARTS]
    visit = request[VISIT] = Visit(parts, request_id, parts.loop.time(), headers, request.match_info.route.name)
    try:
        if request.version not in _SPOKEN:
            raise InvalidHttp("This server speaks HTTP/1.1.")  # trap: aiohttp takes any version, and answers in it
        if parts.readiness.shutting_down:
            raise ShuttingDown("This gateway is shutting down.", retry_after_ns=1_000_000_000)
        response = await handler(request)
    except NexusError as error:
        response = _answer(request, error, headers)
        record_refused(request, visit, error.status, error.code)
    except web.HTTPException as error:
        # aiohttp's own: for a target that is no path (`*`, or of CONNECT) it finds not even our route for the unknown.
        refusal: NexusError = InvalidHttp("The request cannot be served.")
        if request.method == "CONNECT":
            refusal = MethodNotAllowed("This is no proxy for connections.", allow="GET, POST")
        elif error.status == 404:
            refusal = NotFound("No such path.")
        response = _answer(request, refusal, headers)
        response.force_close()  # behind such a target there may be anything
        record_refused(request, visit, refusal.status, refusal.code)
    except ConnectionError:  # the client has gone; there is nobody to answer
        record_refused(request, visit, ClientGone.status, ClientGone.code)
        raise
    except Exception as fault:  # noqa: BLE001 - the one place, see the strategy
        parts.logger.error("fault", request_id=request_id, fault=type(fault).__name__, where=_where(fault))
        response = _answer(
            request, NexusError("Internal error. The operator can find it by the x-request-id."), headers
        )
        record_refused(request, visit, 500, NexusError.code)
    else:
        if visit.call is None:  # the answer to a call has had them from its beginning
            if not response.prepared:
                response.headers.update(headers)
            record_refused(request, visit, response.status, None)
    return response


def _answer(request: web.Request, error: NexusError, headers: dict[str, str]) -> web.Response:
    if request.writer.output_size > 0:
        # Trap: a second answer would be written into the first one.
        if request.transport is not None:
            request.transport.close()
        raise ConnectionResetError("an answer had begun")
    return error_response(error, headers)


def _where(fault: BaseException) -> str:
    """Name file and line, without the message: a message can hold what a client sent."""
    trace = fault.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace is not None else "unknown"
