"""How stages become one handler.

Strategy: a stage gets the request's context and the next stage; that is bound here once, at the start.
"""

from collections.abc import Awaitable, Callable, Sequence

from nexus_proxy.request.context import Handler, RequestContext
from nexus_proxy.web.response import Reply

Stage = Callable[[RequestContext, Handler], Awaitable[Reply]]


def compose(stages: Sequence[Stage], handler: Handler) -> Handler:
    """Put a handler behind stages, the first of them outermost."""
    for stage in reversed(stages):
        handler = _behind(stage, handler)
    return handler


def _behind(stage: Stage, handler: Handler) -> Handler:
    def proceed(context: RequestContext) -> Awaitable[Reply]:
        return stage(context, handler)

    return proceed
