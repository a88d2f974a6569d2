"""Check a JSON value against the JSON Schema of a request, with jsonschema-rs."""

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import msgspec

_MAX_SCHEMA_BYTES = 256 * 1024


def check_json_schema(value: object, schema: object) -> str | None:
    """Return the first violation in words; None for none, or for a schema that cannot be used.

    The words name the schema's keyword and the place, never the value.
    """
    import jsonschema_rs

    try:
        validator = _compile(msgspec.json.encode(schema))
        error = next(iter(validator.iter_errors(value)), None)
    except (TypeError, ValueError, jsonschema_rs.ValidationError):
        return None
    return None if error is None else _describe(error)


@lru_cache(maxsize=64)
def _compile(schema: bytes) -> Any:
    """Return a validator of a schema.

    Raises TypeError, ValueError or jsonschema_rs.ValidationError.
    """
    import jsonschema_rs

    if len(schema) > _MAX_SCHEMA_BYTES:
        raise ValueError("the schema is too large")
    decoded = msgspec.json.decode(schema)
    if not isinstance(decoded, dict | bool):
        raise TypeError("a schema is an object or a boolean")
    return jsonschema_rs.validator_for(decoded, validate_formats=True, retriever=_refuse)


def _refuse(uri: str) -> Any:
    raise ValueError(f"references to other documents are not followed: {uri}")


def _describe(error: Any) -> str:
    path = _format_path(error.instance_path)
    facts, keyword = error.kind.as_dict(), error.kind.name
    if keyword == "required":
        return f"`{_format_path([*error.instance_path, facts['property']])}` is missing"
    place = f"`{path}`" if path else "the value"
    if keyword == "type":
        return f"{place} is not of type {' or '.join(facts['types'])}"
    return f"{place} breaks `{keyword}`"


def _format_path(steps: Iterable[str | int]) -> str:
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps)
    return path.removeprefix(".")
