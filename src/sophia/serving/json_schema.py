"""Whether a JSON value fits a JSON Schema, for the part of the standard that requests use. Pure."""

import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from msgspec import Struct

_DEPTH = 100
_STEPS = 10_000
_NOTES = frozenset(
    [
        "$schema",
        "$id",
        "$defs",
        "$comment",
        "$anchor",
        "definitions",
        "title",
        "description",
        "default",
        "examples",
        "deprecated",
        "readOnly",
        "writeOnly",
        "strict",
    ]
)
_Test = Callable[[Any], bool]


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_integer(value: Any) -> bool:
    return _is_number(value) and (isinstance(value, int) or value.is_integer())


_TYPES: Mapping[str, _Test] = {
    "object": lambda value: isinstance(value, dict),
    "array": lambda value: isinstance(value, list),
    "string": lambda value: isinstance(value, str),
    "number": _is_number,
    "integer": _is_integer,
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
}
# Keyword: whom it binds, what of them is measured, how the measure must stand to the bound.
_BOUNDS: Mapping[str, tuple[_Test, Callable[[Any], Any], Callable[[Any, Any], bool]]] = {
    "minimum": (_is_number, operator.pos, operator.ge),
    "maximum": (_is_number, operator.pos, operator.le),
    "exclusiveMinimum": (_is_number, operator.pos, operator.gt),
    "exclusiveMaximum": (_is_number, operator.pos, operator.lt),
    "minLength": (_TYPES["string"], len, operator.ge),
    "maxLength": (_TYPES["string"], len, operator.le),
    "minItems": (_TYPES["array"], len, operator.ge),
    "maxItems": (_TYPES["array"], len, operator.le),
    "minProperties": (_TYPES["object"], len, operator.ge),
    "maxProperties": (_TYPES["object"], len, operator.le),
}
_READ = frozenset(
    [
        "type",
        "enum",
        "const",
        "required",
        "properties",
        "items",
        "additionalProperties",
        "anyOf",
        "oneOf",
        "allOf",
        "$ref",
    ]
)


class Fit(Struct, frozen=True):
    """The first thing that does not fit, in words, and the keywords that nobody looked at."""

    problem: str | None
    unchecked: tuple[str, ...] = ()


def fit(value: object, schema: object) -> Fit:
    """Return how `value` fits `schema`; what is outside the subset is named and taken as met."""
    reading = _Reading(schema)
    problem = next(reading.problems(value, schema, "", 0), None)
    return Fit(problem, tuple(sorted(reading.unchecked)))


def same(one: Any, other: Any) -> bool:
    """Say whether two JSON values are equal; true is not 1."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return bool(one == other)


class _Reading:
    """One comparison, with the keywords it had to pass over."""

    def __init__(self, root: object) -> None:
        self._root = root
        self._steps = 0
        self.unchecked: set[str] = set()

    def problems(self, value: Any, schema: Any, path: str, depth: int) -> Iterator[str]:
        """Yield what does not fit at `path` and below."""
        if schema is False:
            yield f"{_at(path)} is not allowed"
        if not isinstance(schema, dict):
            if not isinstance(schema, bool):
                self.unchecked.add("schema")
            return
        self._steps += 1
        # References can multiply without end; other requests wait while this one is looked at.
        if depth > _DEPTH or self._steps > _STEPS:
            self.unchecked.add("size")
            return
        self.unchecked.update(
            key for key in schema if key not in _NOTES | _READ and key not in _BOUNDS
        )
        yield from self._own(value, schema, path)
        yield from self._combined(value, schema, path, depth + 1)
        if isinstance(value, dict):
            yield from self._members(value, schema, path, depth + 1)
        elif isinstance(value, list) and "items" in schema and "prefixItems" not in schema:
            for number, item in enumerate(value):
                yield from self.problems(item, schema["items"], f"{path}[{number}]", depth + 1)

    def _own(self, value: Any, schema: dict[str, Any], path: str) -> Iterator[str]:
        """Yield what is wrong with the value itself, whatever is inside."""
        if "type" in schema:
            kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
            tests = [_TYPES.get(kind) if isinstance(kind, str) else None for kind in kinds]
            if None in tests:
                self.unchecked.add("type")
            elif not any(test(value) for test in tests if test is not None):
                yield f"{_at(path)} is not of type {' or '.join(kinds)}"
        options = schema.get("enum")
        if isinstance(options, list) and not any(same(value, option) for option in options):
            yield f"{_at(path)} is none of the allowed values"
        if "const" in schema and not same(value, schema["const"]):
            yield f"{_at(path)} is not the one allowed value"
        for name, (binds, measure, holds) in _BOUNDS.items():
            bound = schema.get(name)
            if _is_number(bound) and binds(value) and not holds(measure(value), bound):
                yield f"{_at(path)} breaks its {name}"

    def _members(
        self, value: dict[str, Any], schema: dict[str, Any], path: str, depth: int
    ) -> Iterator[str]:
        required, known = schema.get("required"), schema.get("properties")
        for name in required if isinstance(required, list) else ():
            if name not in value:
                yield f"{_at(_join(path, name))} is missing"
        properties = known if isinstance(known, dict) else {}
        for name, inner in properties.items():
            if name in value:
                yield from self.problems(value[name], inner, _join(path, name), depth)
        if "additionalProperties" in schema and "patternProperties" not in schema:
            for name in value.keys() - properties.keys():
                other = schema["additionalProperties"]
                yield from self.problems(value[name], other, _join(path, name), depth)

    def _combined(self, value: Any, schema: dict[str, Any], path: str, depth: int) -> Iterator[str]:
        if "$ref" in schema:
            target = self._resolve(schema["$ref"])
            if target is None:
                self.unchecked.add("$ref")
            else:
                yield from self.problems(value, target, path, depth)
        for part in _several(schema.get("allOf")):
            yield from self.problems(value, part, path, depth)
        for name in ("anyOf", "oneOf"):
            parts = _several(schema.get(name))
            fitting = [
                part
                for part in parts
                if next(self.problems(value, part, path, depth), None) is None
            ]
            if parts and not fitting:
                yield f"{_at(path)} fits none of its alternatives"
            if name == "oneOf" and len(fitting) > 1:
                # A branch may fit only because a keyword in it was passed over.
                self.unchecked.add("oneOf")

    def _resolve(self, reference: object) -> object | None:
        """Return what a `#/…` reference points at, or None when it points elsewhere."""
        if not isinstance(reference, str) or not reference.startswith("#"):
            return None
        found: object = self._root
        for step in reference[1:].split("/")[1:]:
            name = step.replace("~1", "/").replace("~0", "~")
            found = found.get(name) if isinstance(found, dict) else None
        return found


def _several(parts: Any) -> list[Any]:
    return parts if isinstance(parts, list) else []


def _join(path: str, name: object) -> str:
    return f"{path}.{name}" if path else str(name)


def _at(path: str) -> str:
    return f"`{path}`" if path else "the value"
