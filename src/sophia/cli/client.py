"""HTTP client for one request to a running Sophia, answered whole or as server-sent events."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from urllib.parse import SplitResult, urlsplit

import msgspec

from sophia.cli.terminal import exit_with_error

_CONNECT_SECONDS = 5.0
_ANSWER_SECONDS = 660.0
"""A little more than Sophia's default time limit of a request."""


class RequestFailed(Exception):
    """The request has no answer; the message says why and what to do."""


class ErrorDetail(msgspec.Struct):
    """The error object of an answer."""

    message: str


class _ErrorBody(msgspec.Struct):
    error: ErrorDetail


def require_key(key: str | None, data_dir: str | None) -> str:
    """Return the inference key; exit with a hint when there is none."""
    if not key or not key.strip():
        folder = f" --data-dir {shlex.quote(data_dir)}" if data_dir else ""
        exit_with_error(
            f"There is no key. Create one:  sophia keys create --name me{folder}\n"
            "and pass it with --key, or set SOPHIA_API_KEY to it.",
            2,
        )
    return key.strip()


def get_json(base_url: str, key: str, path: str) -> object:
    """Return the JSON that a running Sophia answers at `path`. Raises RequestFailed."""
    with open_response(base_url, key, path) as response:
        try:
            return msgspec.json.decode(response.read())
        except msgspec.MsgspecError:
            raise RequestFailed(f"The answer of {base_url} is not JSON.") from None


@contextmanager
def open_response(
    base_url: str, key: str, path: str, body: object | None = None
) -> Iterator[HTTPResponse]:
    """Send `body` as JSON to `path` below `base_url`, and yield the response, which is a 200.

    Without a body it is a GET.

    Raises:
        RequestFailed: there is no server, the answer is an error, or it breaks off.
    """
    url = _parse_base_url(base_url)
    connect = HTTPSConnection if url.scheme == "https" else HTTPConnection
    connection = connect(url.hostname or "", url.port, timeout=_CONNECT_SECONDS)
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    try:
        _connect(connection, base_url)
        try:
            target = url.path.rstrip("/") + path
            if body is None:
                connection.request("GET", target, headers=headers)
            else:
                connection.request("POST", target, msgspec.json.encode(body), headers)
            response = connection.getresponse()
            if response.status != 200:
                raise RequestFailed(_read_error_message(response, base_url))
            yield response
        except (OSError, HTTPException) as error:
            reason = _describe_error(error)
            raise RequestFailed(f"The answer of {base_url} broke off: {reason}.") from None
        except ValueError:
            raise RequestFailed("The key or the base URL contains invalid characters.") from None
    finally:
        connection.close()


def read_events(response: HTTPResponse) -> Iterator[bytes]:
    """Yield the data of each event up to `[DONE]`.

    Raises:
        RequestFailed: the stream ends without `[DONE]`.
    """
    for line in response:
        if line.startswith(b"data:"):
            data = line[5:].strip()
            if data == b"[DONE]":
                return
            yield data
    raise RequestFailed("The answer broke off: what came until then is incomplete.")


def _parse_base_url(base_url: str) -> SplitResult:
    with suppress(ValueError):
        url = urlsplit(base_url)
        if url.scheme in ("http", "https") and url.hostname and url.port != 0:
            return url
    raise RequestFailed(f"{base_url!r} is no base URL; an example is http://127.0.0.1:8080/v1")


def _connect(connection: HTTPConnection, base_url: str) -> None:
    try:
        connection.connect()
    except (OSError, ValueError) as error:
        raise RequestFailed(
            f"Nothing answers at {base_url}: {_describe_error(error)}.\n"
            "Start Sophia with `sophia serve`, or name another one with --base-url."
        ) from None
    connection.sock.settimeout(_ANSWER_SECONDS)


def _read_error_message(response: HTTPResponse, base_url: str) -> str:
    body = response.read(65536)
    try:
        return msgspec.json.decode(body, type=_ErrorBody).error.message
    except msgspec.MsgspecError:
        return f"{base_url} answered HTTP {response.status}: that is not Sophia, or not its /v1."


def _describe_error(error: Exception) -> str:
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return reason.rstrip(".").lower()
