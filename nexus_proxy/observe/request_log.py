"""The one line in the log that each request has when it is over.

Strategy: nearly every request has an exchange, and its line is written without structlog; the others are events like
any other.
"""

from structlog.typing import FilteringBoundLogger

from nexus_proxy.observe.log_writer import ExchangeLog
from nexus_proxy.observe.record import Record


class RequestLog:
    """An observer that writes lines."""

    def __init__(self, logger: FilteringBoundLogger, exchanges: ExchangeLog) -> None:
        self._logger = logger
        self._exchanges = exchanges

    def finished(self, record: Record) -> None:
        """Write the line of a request that is over."""
        if record.exchanged:
            self._exchanges.write(record)
            return
        self._logger.info(
            "request",
            request_id=record.request_id,
            method=record.method,
            route=record.route,
            account=record.account,
            key_hint=record.key_hint,
            model=record.model,
            status=record.status,
            code=record.code,
            duration_ms=int(record.duration_s * 1000),
        )
