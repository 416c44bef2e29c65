"""Which addresses a provider may have."""

import pytest

from nexus_proxy.core.control.addresses import check_base_url, is_public, may_be_public

# Written as the words that a person would try.
PRIVATE = """
127.0.0.1 127.1 127.0.1 2130706433 0x7f000001 0x7f.1 0x7f.0x0.0x0.0x1 0177.0.0.1 017700000001 127.0.0.1. 127.255.255.254
0 0.0.0.0 0x0 10.0.0.1 10.1 172.16.0.1 172.31.255.255 192.168.0.1 192.168.257 3232235521 169.254.169.254 0xa9fea9fe
2852039166 0251.0376.0251.0376 100.64.0.1 192.0.2.1 198.18.0.1 198.51.100.7 203.0.113.7 224.0.0.1 240.0.0.1
255.255.255.255 999.1.1.1 1.2.3.4.5 0x 127.0.0.08 256 4294967296 localhost localhost. LOCALHOST a.localhost
[::1] [::] [::ffff:127.0.0.1] [::ffff:7f00:1] [::ffff:a9fe:a9fe] [::127.0.0.1] [fe80::1] [fc00::1] [fd00:ec2::254]
[fec0::1] [ff02::1] [2001:db8::1] [2002:7f00:1::] [2001:0:53aa::1] [64:ff9b::7f00:1] [64:ff9b::a9fe:a9fe] [100::1]
[::ffff:0:127.0.0.1] [64:ff9b:1::1]
""".split()  # noqa: SIM905
PUBLIC = """
8.8.8.8 134744072 0x8.8.8.8 1.1 [2606:4700::1111] [::ffff:8.8.8.8]
[64:ff9b::808:808] api.deepseek.com a.b.
""".split()  # noqa: SIM905


@pytest.mark.parametrize("host", PRIVATE)
def test_f7_private_loopback_and_reserved_hosts_are_refused_in_every_spelling(host: str) -> None:
    assert not may_be_public(host)
    with pytest.raises(ValueError, match="private"):
        check_base_url(f"https://{host}/v1", allow_private=False)
    assert check_base_url(f"https://{host}/v1/", allow_private=True) == f"https://{host}/v1"


@pytest.mark.parametrize("host", PUBLIC)
def test_public_hosts_are_taken(host: str) -> None:
    assert may_be_public(host)
    assert check_base_url(f"https://{host}:8443", allow_private=False) == f"https://{host}:8443"


@pytest.mark.parametrize(
    ("ip", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("::ffff:8.8.8.8", True),
        ("169.254.169.254", False),
        ("::ffff:169.254.169.254", False),
        ("fe80::1%eth0", False),
        ("127.0.0.1", False),
        ("0.0.0.0", False),
        ("", False),
        ("example.com", False),
        ("2130706433", False),
    ],
)
def test_f7_is_public_judges_what_a_name_resolves_to(ip: str, public: bool) -> None:
    assert is_public(ip) is public


@pytest.mark.parametrize(
    "url",
    [
        "ftp://h/",
        "https://",
        "h.com/v1",
        "https://u@h.com/",
        "https://u:p@h.com/",
        "https://h.com/?q=1",
        "https://h.com/#f",
        "https://h.com:0/",
        "https://h.com:99999/",
        "https://h.com/a/../b",
        "https://h.com/%2e%2e/",
        "https://h .com/",
        "https://h.com\r\nX: 1",
        "https://h.com\\@evil/",
        "https://127。0。0。1/",
        "https://１２７.0.0.1/",
        "https://h.com//v1",
    ],
)
@pytest.mark.parametrize("allow_private", [False, True])
def test_f7_a_base_url_has_nothing_but_host_port_and_path(url: str, allow_private: bool) -> None:
    with pytest.raises(ValueError, match="expected"):
        check_base_url(url, allow_private=allow_private)


@pytest.mark.parametrize(
    ("url", "allow_private", "taken"),
    [
        ("http://api.deepseek.com", False, False),
        ("http://8.8.8.8/v1", True, False),
        ("http://127.0.0.1:8000/v1", True, True),
        ("http://vllm:8000/v1", True, True),
        ("https://vllm:8000/v1", False, True),
    ],
)
def test_plain_http_only_to_private_hosts(url: str, allow_private: bool, taken: bool) -> None:
    if taken:
        assert check_base_url(url, allow_private=allow_private) == url
    else:
        with pytest.raises(ValueError, match="plain http"):
            check_base_url(url, allow_private=allow_private)
