"""Which addresses a provider may have: public ones, unless its entry allows private ones.

Strategy: an allow-list, not a list of bad ranges: public is what the registries call global unicast, seen through every
form that carries an IPv4 address inside. Used on what the configuration says, and again on what a name resolves to.
"""

import ipaddress
import re
from typing import Final

_V6_GLOBAL = ipaddress.IPv6Network("2000::/3")
_V6_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_NUMBER: Final = re.compile(r"0[xX][0-9a-fA-F]*|[0-9]+", re.ASCII)
_BASE_URL: Final = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>\d{1,5}))?(?P<path>(?:/[A-Za-z0-9._~-]+)*)/?",
    re.ASCII,
)


def is_public(ip_text: str) -> bool:
    """Tell whether an IP address may be reached without `allow_private`. False for what is no address."""
    try:
        ip = ipaddress.ip_address(ip_text.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv4Address):
        return ip.is_global and not ip.is_multicast and not ip.is_reserved
    if ip.ipv4_mapped is not None:
        return is_public(str(ip.ipv4_mapped))
    if ip in _V6_NAT64:
        return is_public(str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)))
    return ip in _V6_GLOBAL and ip.is_global and ip.sixtofour is None and ip.teredo is None


def may_be_public(host: str) -> bool:
    """Tell whether a host may be reached without `allow_private`, as far as its spelling says.

    A literal address in any form that a resolver takes (decimal, octal, hexadecimal, fewer than four parts) is
    judged here; a name that does not mean this machine is judged when it is resolved.
    """
    name = host.removesuffix(".").casefold()
    if name.startswith("["):
        return is_public(name[1:-1])
    if name == "localhost" or name.endswith(".localhost"):
        return False
    parts = name.split(".")
    if _NUMBER.fullmatch(parts[-1]) is None:  # a host whose last part is a number is an address, or nothing
        return bool(name)
    return is_public(_inet_aton(parts))


def is_literal(host: str) -> bool:
    """Tell whether a host is an address in some form, not a name."""
    return host.startswith("[") or _NUMBER.fullmatch(host.removesuffix(".").split(".")[-1]) is not None


def _inet_aton(parts: list[str]) -> str:
    if len(parts) > 4 or not all(_NUMBER.fullmatch(part) for part in parts):
        return ""
    try:
        *leading, last = (_number(part) for part in parts)
    except ValueError:
        return ""
    if any(number > 255 for number in leading) or last >= 1 << (8 * (4 - len(leading))):
        return ""
    value = last
    for index, number in enumerate(leading):
        value |= number << (8 * (3 - index))
    return str(ipaddress.IPv4Address(value))


def _number(part: str) -> int:
    if part[:2] in {"0x", "0X"}:
        return int(part[2:] or "0", 16)
    return int(part, 8 if len(part) > 1 and part.startswith("0") else 10)


def check_base_url(url: str, *, allow_private: bool) -> str:
    """Return a provider's base URL without a trailing slash. ValueError says what is wrong with it."""
    match = _BASE_URL.fullmatch(url)
    if match is None or any(part in {".", ".."} for part in match["path"].split("/")):
        raise ValueError("expected http(s)://host[:port][/path] with no user, query or fragment")
    if match["port"] is not None and not 0 < int(match["port"]) < 65_536:
        raise ValueError("expected a port from 1 to 65535")
    host = match["host"]
    public = may_be_public(host)
    if not public and not allow_private:
        raise ValueError(f"{host} is a private, loopback or reserved address; set allow_private = true if it is meant")
    if match["scheme"] == "http" and (not allow_private or (public and is_literal(host))):
        raise ValueError("plain http would show the key to the network; expected https (or a private address, allowed)")
    return url.removesuffix("/")
