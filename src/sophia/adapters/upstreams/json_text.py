"""JSON of upstreams, read as leniently as clients read it: a byte order mark, half an emoji."""

import json
from typing import Any

import msgspec

from sophia.core.failures import FailureKind, UpstreamFailure

JsonObject = dict[str, Any]

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_WHITESPACE = b" \t\r\n"
MAX_PARTS = 60_000
"""Most objects, lists or fields of a chunk or an answer: each takes longer than a byte of text."""
_decode = msgspec.json.Decoder().decode
encode = msgspec.json.Encoder().encode


def decode_value(payload: bytes) -> Any:
    """Return the JSON value in `payload`; text may hold lone surrogates. Raises ValueError."""
    payload = payload.lstrip(_WHITESPACE).removeprefix(BYTE_ORDER_MARK)
    try:
        return _decode(payload)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        if b"\\u" not in payload:
            raise ValueError(str(error)) from None
    try:
        return json.loads(payload)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def decode_object(payload: bytes) -> JsonObject:
    """Return the JSON object in `payload`. Raises UpstreamFailure if it is no JSON object."""
    try:
        value = decode_value(payload)
    except ValueError:
        value = None
    if type(value) is not dict:
        raise UpstreamFailure(FailureKind.MALFORMED, "the upstream sent something that is not JSON")
    return value


_MOST_OF_MARK = {ord(":"): 3, ord(","): 10}


def check_parts(payload: bytes) -> None:
    """Raise UpstreamFailure for JSON with too many objects, arrays, fields or items.

    Marks inside text count too. Fields may be three times as many as objects, and items ten times:
    they cost that much less.
    """
    for mark in b"{[:,":
        count, most = 0, MAX_PARTS * _MOST_OF_MARK.get(mark, 1)
        for start in range(0, len(payload), MAX_PARTS):
            # Searching is much faster than counting where there is none, as in a picture.
            if payload.find(mark, start, start + MAX_PARTS) >= 0:
                count += payload.count(mark, start, start + MAX_PARTS)
            if count > most:
                raise UpstreamFailure(
                    FailureKind.TOO_LARGE, "the upstream sent JSON of too many parts"
                )


def coerce_object(value: object) -> JsonObject:
    """Return a copy of `value`, decoded if it is raw JSON; an empty object if it is no object."""
    if isinstance(value, msgspec.Raw):
        value = _decode(value)
    return dict(value) if isinstance(value, dict) else {}


def encode_repaired(value: object) -> bytes:
    """Encode `value`; halves of surrogate pairs that are left become U+FFFD.

    Raises UpstreamFailure if it is nested too deeply.
    """
    try:
        try:
            return encode(value)
        except UnicodeEncodeError:
            return encode(_repair(value))
    except RecursionError:
        raise UpstreamFailure(FailureKind.MALFORMED, "the answer is nested too deeply") from None


def join_surrogates(text: str) -> str:
    """Return `text` with its surrogate pairs joined and lone halves as U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def split_half_character(text: str) -> tuple[str, str]:
    """Return `text` without a high surrogate at its end, and that half."""
    if text and "\ud800" <= text[-1] <= "\udbff":
        return text[:-1], text[-1]
    return text, ""


def _repair(value: object) -> object:
    if isinstance(value, str):
        return join_surrogates(value)
    if isinstance(value, list):
        return [_repair(item) for item in value]
    if isinstance(value, dict):
        return {_repair(name): _repair(item) for name, item in value.items()}
    return value
