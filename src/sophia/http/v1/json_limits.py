"""Limits of JSON bodies: how deep they nest, and which of their fields may not be repeated."""

import msgspec
import numpy as np

from sophia.core.errors import BadRequest

MAX_DEPTH = 100
MAX_FIELDS = 1_000
_UNREPEATED_NAMES = "model models max_tokens max_completion_tokens user stream n provider sophia"
_UNREPEATED = {name: b'"%b"' % name.encode() for name in _UNREPEATED_NAMES.split()}
# Up to this length the depth is found quickest in an indented copy, by a line too far right; one of
# a longer body could grow a thousandfold.
_SMALL_BYTES = 16 * 1024
_DEEP_LINE = b"\n" + b" " * MAX_DEPTH + b" "
# A step into an array or object as 1, and out of it as -1.
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_OTHERS = bytes(byte for byte in range(256) if byte not in b"[{]}")


class _FieldName:
    """The name of a field; each is a key of its own, so that a dict keeps repeated ones."""

    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


class FieldDecoder:
    """Decoder of the fields of a JSON object, of repeated ones the last."""

    def __init__(self) -> None:
        self._left = 0
        self._plain = msgspec.json.Decoder(dict[str, msgspec.Raw])
        self._repeating = msgspec.json.Decoder(
            dict[_FieldName, msgspec.Raw], dec_hook=self._wrap_name
        )

    def decode(self, body: bytes) -> dict[str, msgspec.Raw]:
        """Return the fields of `body`, which is known to be an object.

        Raises BadRequest for too many, and when one is repeated by which others may decide who pays
        and how much.
        """
        if len(body) <= _SMALL_BYTES and (b"\\" not in body or b"\\u" not in body):
            fields = self._plain.decode(body)
            # Without escapes a name is spelled in one way, here and within the values.
            for name in fields:
                if name in _UNREPEATED and body.count(_UNREPEATED[name]) != 1:
                    break
            else:
                if len(fields) <= MAX_FIELDS:
                    return fields
        self._left = MAX_FIELDS
        pairs = self._repeating.decode(body)
        fields = {key.name: raw for key, raw in pairs.items()}
        if len(fields) != len(pairs):
            names = [key.name for key in pairs]
            if repeated := sorted(name for name in _UNREPEATED if names.count(name) > 1):
                raise BadRequest(
                    f"The field `{repeated[0]}` is repeated; send it once.", param=repeated[0]
                )
        return fields

    def _wrap_name(self, _: type, name: str) -> _FieldName:
        self._left -= 1
        if self._left < 0:
            raise BadRequest(f"The body has more than {MAX_FIELDS:,} fields; send fewer.")
        return _FieldName(name)


decode_fields = FieldDecoder().decode


def check_depth(body: bytes) -> None:
    """Raise BadRequest for a JSON text that nests deeper than `MAX_DEPTH`."""
    if body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
        # There are no more opening ones, in text or not.
        return
    if len(body) <= _SMALL_BYTES:
        is_deep = _DEEP_LINE in msgspec.json.format(body, indent=1)
    else:
        is_deep = _measure_depth(body) > MAX_DEPTH
    if is_deep:
        raise build_depth_error()


def build_depth_error() -> BadRequest:
    """Return the error for a body that nests too deeply."""
    return BadRequest(f"The body nests deeper than {MAX_DEPTH} levels; make it flatter.")


def _measure_depth(body: bytes) -> int:
    if b'\\"' in body:
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    # Every second part between quotation marks is outside of text.
    brackets = b"".join(body.split(b'"')[::2]).translate(_STEPS, _OTHERS)
    return int(np.frombuffer(brackets, np.int8).cumsum(dtype=np.int32).max())
