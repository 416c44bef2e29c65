"""The outermost stage: one shape for every error, one line for every request.

Strategy: everything below raises; only here is it turned into an answer. What has already begun to answer cannot be
answered again, so its connection is closed instead.
"""

from nexus_proxy.errors import ClientGone, InvalidHttp, NexusError, ShuttingDown
from nexus_proxy.request.context import Handler, Visit
from nexus_proxy.request.record import record_refused
from nexus_proxy.web.response import Answer, Reply, error_answer


async def boundary(visit: Visit, handler: Handler) -> Reply:
    """Answer every request, whatever happens below. ConnectionError if there is nobody to answer."""
    parts = visit.parts
    try:
        if not visit.arrival.spoken:
            raise InvalidHttp("This server speaks HTTP/1.1.")
        if parts.readiness.shutting_down:
            raise ShuttingDown("This gateway is shutting down.", retry_after_ns=1_000_000_000)
        reply = await handler(visit)
    except NexusError as error:
        reply = _answer(visit, error)
        record_refused(visit, error.status, error.code)
    except ConnectionError:
        record_refused(visit, ClientGone.status, ClientGone.code)
        raise
    except Exception as fault:  # noqa: BLE001 - the one place, see the strategy
        parts.logger.error("fault", request_id=visit.request_id, fault=type(fault).__name__, where=_where(fault))
        reply = _answer(visit, NexusError("Internal error. The operator can find it by the x-request-id."))
        record_refused(visit, 500, NexusError.code)
    else:
        if visit.call is None:
            record_refused(visit, reply.status, None)
    return reply


def _answer(visit: Visit, error: NexusError) -> Answer:
    if visit.answering:
        # Trap: a second answer would be written into the first one.
        visit.arrival.connection.force_close()
        raise ConnectionResetError("an answer had begun")
    return error_answer(error, visit.headers)


def _where(fault: BaseException) -> str:
    """Name file and line, without the message: a message can hold what a client sent."""
    trace = fault.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace is not None else "unknown"
