"""The configuration: one TOML file, checked as a whole, resolved into frozen types."""

from nexus_proxy.config.load import WrongConfig, load, resolve
from nexus_proxy.config.types import Address, Config, LedgerUrl, Limits, Provider, ServerConfig, Timeouts

__all__ = [
    "Address",
    "Config",
    "LedgerUrl",
    "Limits",
    "Provider",
    "ServerConfig",
    "Timeouts",
    "WrongConfig",
    "load",
    "resolve",
]
