"""Base URLs, proxies and header lines: what is read from settings before anything is sent."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sophia.adapters.upstreams.http1.heads import header_lines
from sophia.adapters.upstreams.http1.origin import HttpOrigin
from sophia.adapters.upstreams.http1.proxy import Proxy, find_proxy


@pytest.mark.parametrize(
    ("url", "origin", "authority"),
    [
        (
            "https://openrouter.ai/api/v1",
            HttpOrigin("https", "openrouter.ai", 443, "/api/v1"),
            "openrouter.ai",
        ),
        ("http://localhost:8080/", HttpOrigin("http", "localhost", 8080, ""), "localhost:8080"),
        ("HTTPS://Example.org:443", HttpOrigin("https", "example.org", 443, ""), "example.org"),
        ("http://[::1]:9/v1/", HttpOrigin("http", "::1", 9, "/v1"), "[::1]:9"),
        ("https://bücher.example", HttpOrigin("https", "xn--bcher-kva.example", 443, ""), None),
    ],
)
def test_a_base_url_is_taken_apart(url: str, origin: HttpOrigin, authority: str | None) -> None:
    """The port is the scheme's own unless it is named."""
    assert HttpOrigin.parse(url) == origin
    assert authority is None or origin.authority == authority


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("ftp://host", "http://"),
        ("openrouter.ai/api", "http://"),
        ("https://user:secret@host", "API key"),
        ("https://host/?a=b", "query"),
        ("https://host/#part", "fragment"),
        ("https://", "host"),
        ("https://host:99999", "port"),
        ("https://host/a b", "path"),
        ("https://ho st/", "host"),
        ("https://a..b/", "name"),
    ],
)
def test_a_wrong_base_url_says_what_to_change(url: str, hint: str) -> None:
    """The sentence names the part and never repeats a secret."""
    with pytest.raises(ValueError, match=hint) as caught:
        HttpOrigin.parse(url)
    assert "secret" not in str(caught.value)


PROXY = {"HTTPS_PROXY": "http://proxy:3128"}


@pytest.mark.parametrize(
    ("url", "environ", "host"),
    [
        ("https://a.org", {}, None),
        ("https://a.org", PROXY, "proxy"),
        ("http://a.org", PROXY, None),
        ("http://a.org", {"HTTP_PROXY": "http://plain"}, "plain"),
        ("http://a.org", {"ALL_PROXY": "all:1"}, "all"),
        ("https://a.org", {"https_proxy": "http://lower", **PROXY}, "lower"),
        ("https://a.org", {"NO_PROXY": "*", **PROXY}, None),
        ("https://a.org", {"NO_PROXY": "b.org, a.org", **PROXY}, None),
        ("https://x.a.org", {"NO_PROXY": ".a.org", **PROXY}, None),
        ("https://x.a.org", {"no_proxy": "a.org", **PROXY}, None),
        ("https://xa.org", {"NO_PROXY": "a.org", **PROXY}, "proxy"),
        ("https://a.org:444", {"NO_PROXY": "a.org:443", **PROXY}, "proxy"),
        ("https://a.org:444", {"NO_PROXY": "a.org:444", **PROXY}, None),
        ("https://10.1.2.3", {"NO_PROXY": "10.0.0.0/8", **PROXY}, None),
        ("https://11.1.2.3", {"NO_PROXY": "10.0.0.0/8", **PROXY}, "proxy"),
        ("https://[::1]", {"NO_PROXY": "::1", **PROXY}, None),
        ("https://a.org", {"HTTPS_PROXY": ""}, None),
    ],
)
def test_the_environment_names_the_proxy(
    url: str, environ: dict[str, str], host: str | None
) -> None:
    """The usual variables, lower case first, and NO_PROXY's usual entries."""
    proxy = find_proxy(url, environ)
    assert (proxy.host if proxy else None) == host


def test_a_proxy_keeps_its_password_to_itself() -> None:
    """Credentials are decoded for the wire and never shown."""
    proxy = Proxy.parse("http://user:p%40ss@proxy.example:3128")
    assert (proxy.host, proxy.port) == ("proxy.example", 3128)
    assert proxy.authorization == "Basic dXNlcjpwQHNz"
    assert "dXNlcjpwQHNz" not in repr(proxy)
    with pytest.raises(ValueError, match="http://"):
        Proxy.parse("socks5://user:secret@proxy")


@given(st.text(max_size=20), st.sampled_from("\r\n\0"), st.text(max_size=20))
def test_a_value_cannot_start_a_new_line(before: str, bad: str, after: str) -> None:
    """No header value reaches the wire with CR, LF or NUL in it, nor an error message."""
    with pytest.raises(ValueError, match="X-Key") as caught:
        header_lines([("X-Key", before + bad + after)])
    assert str(caught.value) == "The header X-Key holds a control character or is not Latin-1."


@pytest.mark.parametrize("name", ["", "a b", "a:", "a\r\n", "Host", "content-length"])
def test_a_name_must_be_a_free_token(name: str) -> None:
    """Names are tokens, and the client's own headers are not for others to set."""
    with pytest.raises(ValueError, match="header"):
        header_lines([(name, "x")])
