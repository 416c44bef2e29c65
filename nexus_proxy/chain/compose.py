"""How stages become one handler.

Strategy: a stage gets the visit and whoever is behind it; that is bound here once, at the start.
"""

from collections.abc import Awaitable, Callable, Sequence

from nexus_proxy.request.context import Handler, Visit
from nexus_proxy.web.response import Reply

Stage = Callable[[Visit, Handler], Awaitable[Reply]]


def compose(stages: Sequence[Stage], handler: Handler) -> Handler:
    """Put a handler behind stages, the first of them outermost."""
    for stage in reversed(stages):
        handler = _behind(stage, handler)
    return handler


def _behind(stage: Stage, handler: Handler) -> Handler:
    def proceed(visit: Visit) -> Awaitable[Reply]:
        return stage(visit, handler)

    return proceed
