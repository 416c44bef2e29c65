"""A model that clients can ask for: where it is served, what bounds it, what it costs."""

from dataclasses import dataclass

from nexus_proxy.core.money.prices import Tariff
from nexus_proxy.core.wire.dialect import Dialect


@dataclass(frozen=True, slots=True)
class Model:
    """One public model id, fully resolved. Token counts are the model's own."""

    id: str  # what clients ask for; may contain `/`
    provider: str
    upstream: str  # the provider's own id
    dialect: Dialect
    tariff: Tariff
    created: int  # Unix seconds, for the model list
    context: int  # tokens
    max_output: int  # tokens
    default_output: int  # the limit that is sent when the client names none
    limit_parameter: str = "max_tokens"  # or "max_completion_tokens": where the limit goes on the provider's wire
    limit_covers_thinking: bool = True
    thinking_max: int = 0  # tokens of thinking beside the limit, where the limit does not cover it
    send_temperature: bool = False  # the provider is known to take our default temperature
    media_tokens: int = 16_384  # allowance for one image, audio or file part
    template_tokens: int = 1_024  # allowance for the provider's chat template and hidden prompt
    allowed_parameters: frozenset[str] = frozenset()  # price-changing parameters that this entry prices and bounds
