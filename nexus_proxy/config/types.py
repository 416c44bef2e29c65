"""What a server needs to know before it starts: frozen, checked, resolved."""

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from nexus_proxy.core.model import Model
from nexus_proxy.core.money.plans import Plan
from nexus_proxy.core.money.prices import PriceVersion
from nexus_proxy.core.wire.dialect import Dialect
from nexus_proxy.errors import ModelNotFound


@dataclass(frozen=True, slots=True)
class Address:
    """Where a listener binds."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Timeouts:
    """All in seconds."""

    connect_s: float = 5.0
    first_byte_s: float = 600.0
    silence_s: float = 120.0
    exchange_s: float = 3600.0
    client_headers_s: float = 10.0
    client_body_s: float = 30.0
    client_idle_s: float = 75.0
    client_stalled_s: float = 60.0
    commit_s: float = 1.0
    shutdown_s: float = 120.0


@dataclass(frozen=True, slots=True)
class Limits:
    """What one process takes on at most."""

    body_bytes: int = 10 * 1024 * 1024
    bodies_bytes: int = 256 * 1024 * 1024  # of all request bodies being read or forwarded
    answer_bytes: int = 1024 * 1024 * 1024  # of one answer
    drain_s: float = 60.0
    drain_bytes: int = 1024 * 1024
    drains: int = 256


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """The listeners."""

    listen: Address
    admin_listen: Address
    timeouts: Timeouts
    limits: Limits


@dataclass(frozen=True, slots=True)
class Provider:
    """A provider that is switched on."""

    name: str
    base_url: str  # no trailing slash; the chat path is appended
    api_key: str = field(repr=False)  # secret: never in a log or an answer; empty where the server wants none
    dialect: Dialect
    allow_private: bool
    on_disconnect: Literal["drain", "cancel"]
    in_flight_max: int
    retry_stale: bool  # one more try if a reused connection turns out dead before any byte of the response
    ca_file: Path | None  # PEM of extra authorities; None trusts the system's


@dataclass(frozen=True, slots=True)
class LedgerUrl:
    """Where the ledger is. `sqlite:` is the one scheme so far: a file of this machine."""

    path: Path


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that a server needs to know before it starts."""

    server: ServerConfig
    ledger: LedgerUrl
    currency: str
    plans: Mapping[str, Plan]
    providers: Mapping[str, Provider]
    models: Mapping[str, Model]
    prices: tuple[PriceVersion, ...]

    def find_model(self, allowed: Container[str] | None, model_id: str) -> Model:
        """Return a model; `allowed` are the ids that the key may use, None for all of them. ModelNotFound."""
        model = self.models.get(model_id)
        if model is None or (allowed is not None and model_id not in allowed):
            raise ModelNotFound("No such model, or this key may not use it. GET /v1/models lists them.", param="model")
        return model
