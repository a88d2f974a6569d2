"""Ask a running Sophia: one request, answered whole or as server-sent events."""

from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from urllib.parse import SplitResult, urlsplit

import msgspec

_CONNECT_SECONDS = 5.0
_ANSWER_SECONDS = 660.0
"""A little more than the longest that Sophia gives a request by default."""


class Refused(Exception):
    """There is no answer; the message says why and what to do."""


class _Error(msgspec.Struct):
    message: str


class _ErrorBody(msgspec.Struct):
    error: _Error


@contextmanager
def post(base_url: str, key: str, path: str, body: object) -> Iterator[HTTPResponse]:
    """Send `body` as JSON to `path` below `base_url` and give the answer, which is a 200.

    Raises:
        Refused: nobody answers there, the answer is an error, or it breaks off in mid-reading.
    """
    url = _parsed(base_url)
    secure = url.scheme == "https"
    connect = HTTPSConnection if secure else HTTPConnection
    connection = connect(url.hostname or "", url.port, timeout=_CONNECT_SECONDS)
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    try:
        _open(connection, base_url)
        try:
            target = url.path.rstrip("/") + path
            connection.request("POST", target, msgspec.json.encode(body), headers)
            response = connection.getresponse()
            if response.status != 200:
                raise Refused(_message(response, base_url))
            yield response
        except (OSError, HTTPException) as error:
            raise Refused(f"The answer of {base_url} broke off: {_words(error)}.") from None
        except ValueError:
            raise Refused("The key or the base URL holds characters that none can have.") from None
    finally:
        connection.close()


def events(response: HTTPResponse) -> Iterator[bytes]:
    """Yield the data of each event up to `[DONE]`.

    Raises:
        Refused: the stream ends without `[DONE]`.
    """
    for line in response:
        if line.startswith(b"data:"):
            data = line[5:].strip()
            if data == b"[DONE]":
                return
            yield data
    raise Refused("The answer broke off: what came until then is incomplete.")


def _parsed(base_url: str) -> SplitResult:
    try:
        url = urlsplit(base_url)
        known = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:
        known = False
    if not known:
        raise Refused(f"{base_url!r} is no base URL; one looks like http://127.0.0.1:8080/v1")
    return url


def _open(connection: HTTPConnection, base_url: str) -> None:
    try:
        connection.connect()
    except (OSError, ValueError) as error:
        raise Refused(
            f"Nothing answers at {base_url}: {_words(error)}.\n"
            "Start Sophia with `sophia serve`, or name another one with --base-url."
        ) from None
    connection.sock.settimeout(_ANSWER_SECONDS)


def _message(response: HTTPResponse, base_url: str) -> str:
    body = response.read(65536)
    try:
        return msgspec.json.decode(body, type=_ErrorBody).error.message
    except msgspec.MsgspecError:
        return f"{base_url} answered HTTP {response.status}: that is not Sophia, or not its /v1."


def _words(error: Exception) -> str:
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return reason.rstrip(".").lower()
