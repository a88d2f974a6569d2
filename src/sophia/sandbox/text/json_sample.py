"""A valid JSON value for a JSON schema, the same one every time."""

from collections.abc import Mapping
from dataclasses import dataclass

from sophia.sandbox.api.shapes import as_list, as_mapping

MAX_DEPTH = 8
FORMATS: Mapping[str, str] = {
    "date": "2026-01-31",
    "date-time": "2026-01-31T12:00:00Z",
    "time": "12:00:00Z",
    "email": "someone@example.org",
    "uri": "https://example.org/",
    "uuid": "00000000-0000-4000-8000-000000000000",
    "ipv4": "192.0.2.1",
}

Schema = Mapping[str, object]


def sample_json(schema: object, topic: str) -> object:
    """Return a value that satisfies `schema`, with required fields only and `topic` as strings.

    `pattern` is ignored; the other keywords that tools commonly use are obeyed.
    """
    root = as_mapping(schema)
    return _Sampler(root, topic).value(root, MAX_DEPTH)


@dataclass(frozen=True, slots=True)
class _Sampler:
    root: Schema
    topic: str

    def value(self, schema: object, depth: int) -> object:
        schema = _resolve(schema, self.root)
        for name in ("const", "default"):
            if name in schema:
                return schema[name]
        for name in ("enum", "examples"):
            if choices := as_list(schema.get(name)):
                return choices[0]
        for name in ("anyOf", "oneOf"):
            if options := as_list(schema.get(name)):
                return self.value(options[0], depth)
        return self._typed(schema, depth)

    def _typed(self, schema: Schema, depth: int) -> object:
        match _type(schema):
            case "object":
                return self._object(schema, depth)
            case "array":
                count = max(_int_or(schema.get("minItems"), 0), 1 if depth > 0 else 0)
                return [self.value(schema.get("items"), depth - 1) for _ in range(count)]
            case "integer":
                return _integer(schema)
            case "number":
                return _number(schema)
            case "boolean":
                return True
            case "null":
                return None
            case _:
                return _string(schema, self.topic)

    def _object(self, schema: Schema, depth: int) -> dict[str, object]:
        properties = as_mapping(schema.get("properties"))
        required = schema.get("required")
        optional = list(properties) if depth > 0 else []
        names = required if isinstance(required, list) else optional
        return {str(name): self.value(properties.get(name), depth - 1) for name in names}


def _resolve(schema: object, root: Schema) -> Schema:
    """Return `schema` with its references followed and its `allOf` merged."""
    for _ in range(MAX_DEPTH):
        if not isinstance(schema, dict):
            return {}
        if isinstance(reference := schema.get("$ref"), str):
            schema = root
            for part in reference.removeprefix("#").split("/")[1:]:
                schema = as_mapping(schema).get(part, {})
        elif isinstance(parts := schema.get("allOf"), list):
            schema = _merge(schema, [_resolve(part, root) for part in parts])
        else:
            return schema
    return {}


def _merge(schema: Schema, parts: list[Schema]) -> Schema:
    merged: dict[str, object] = {}
    properties: dict[str, object] = {}
    required: list[object] = []
    for part in ({k: v for k, v in schema.items() if k != "allOf"}, *parts):
        merged.update(part)
        properties.update(as_mapping(part.get("properties")))
        required += as_list(part.get("required"))
    if properties:
        merged.update(properties=properties, required=required)
    return merged


def _type(schema: Schema) -> str:
    kind = schema.get("type")
    if isinstance(kind, list):
        kind = next((name for name in kind if name != "null"), "null")
    if isinstance(kind, str):
        return kind
    if "properties" in schema:
        return "object"
    return "array" if "items" in schema else "string"


def _string(schema: Schema, topic: str) -> str:
    text = FORMATS.get(str(schema.get("format")), topic)
    text = text.ljust(_int_or(schema.get("minLength"), 0), ".")
    return text[: _int_or(schema.get("maxLength"), len(text))]


def _integer(schema: Schema) -> int:
    low = schema.get("minimum")
    value = int(low) if isinstance(low, (int, float)) else 1
    if isinstance(above := schema.get("exclusiveMinimum"), (int, float)):
        value = int(above) + 1
    if isinstance(high := schema.get("maximum"), (int, float)):
        value = min(value, int(high))
    step = _int_or(schema.get("multipleOf"), 1) or 1
    return -(-value // step) * step


def _number(schema: Schema) -> float:
    low, high = schema.get("minimum", schema.get("exclusiveMinimum")), schema.get("maximum")
    if isinstance(low, (int, float)) and isinstance(high, (int, float)):
        return (low + high) / 2
    if isinstance(low, (int, float)):
        return low + 0.5
    return min(0.5, float(high)) if isinstance(high, (int, float)) else 0.5


def _int_or(value: object, default: int) -> int:
    return value if isinstance(value, int) else default
