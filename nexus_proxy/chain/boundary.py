"""The outermost stage: one shape for every error, one line for every request.

Strategy: everything below raises; only here is it turned into an answer. What has already begun to answer cannot be
answered again, so its connection is closed instead.
"""

from nexus_proxy.errors import ClientGone, InvalidHttp, NexusError, ShuttingDown
from nexus_proxy.request.context import Handler, RequestContext
from nexus_proxy.request.record import record_refused
from nexus_proxy.web.response import Reply, Response, error_response


async def boundary(context: RequestContext, handler: Handler) -> Reply:
    """Answer every request, whatever happens below. ConnectionError if there is nobody to answer."""
    services = context.services
    try:
        if not context.incoming.spoken:
            raise InvalidHttp("This server speaks HTTP/1.1.")
        if services.readiness.shutting_down:
            raise ShuttingDown("This gateway is shutting down.", retry_after_ns=1_000_000_000)
        reply = await handler(context)
    except NexusError as error:
        reply = _answer(context, error)
        record_refused(context, error.status, error.code)
    except ConnectionError:
        record_refused(context, ClientGone.status, ClientGone.code)
        raise
    except Exception as fault:  # noqa: BLE001 - the one place, see the strategy
        services.logger.error("fault", request_id=context.request_id, fault=type(fault).__name__, where=_where(fault))
        reply = _answer(context, NexusError("Internal error. The operator can find it by the x-request-id."))
        record_refused(context, 500, NexusError.code)
    else:
        if context.call is None:
            record_refused(context, reply.status, None)
    return reply


def _answer(context: RequestContext, error: NexusError) -> Response:
    if context.answering:
        # Trap: a second answer would be written into the first one.
        context.incoming.connection.force_close()
        raise ConnectionResetError("an answer had begun")
    return error_response(error, context.headers)


def _where(fault: BaseException) -> str:
    """Name file and line, without the message: a message can hold what a client sent."""
    trace = fault.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace is not None else "unknown"
