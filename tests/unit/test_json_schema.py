"""A value is checked against a caller's JSON Schema; hostile schemas neither hang nor fetch."""

from typing import Any

import pytest

from sophia.serving.cascade.json_schema import check_json_schema

CITY = {
    "type": "object",
    "title": "City",
    "properties": {
        "name": {"type": "string", "minLength": 1},
        "people": {"type": ["integer", "null"], "minimum": 0},
        "kind": {"enum": ["town", "city", 1]},
        "founded": {"type": "string", "format": "date"},
        "twins": {"type": "array", "items": {"$ref": "#/$defs/twin"}, "maxItems": 2},
    },
    "required": ["name"],
    "additionalProperties": False,
    "$defs": {"twin": {"anyOf": [{"type": "string"}, {"const": 7}]}},
}


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ({"name": "Ulm"}, None),
        ({"name": "Ulm", "people": None, "kind": 1, "twins": ["Jena", 7]}, None),
        ({"name": "Ulm", "people": 2.0}, None),
        ({"name": "Ulm", "people": 10**400}, None),
        ({"name": "Ulm", "founded": "0854-07-22"}, None),
        ([], "the value is not of type object"),
        ({}, "`name` is missing"),
        ({"name": ""}, "`name` breaks `minLength`"),
        ({"name": "Ulm", "people": -1}, "`people` breaks `minimum`"),
        ({"name": "Ulm", "people": True}, "`people` is not of type null or integer"),
        ({"name": "Ulm", "kind": True}, "`kind` breaks `enum`"),
        ({"name": "Ulm", "founded": "long ago"}, "`founded` breaks `format`"),
        ({"name": "Ulm", "twins": ["a", 8]}, "`twins[1]` breaks `anyOf`"),
        ({"name": "Ulm", "river": "Danube"}, "the value breaks `additionalProperties`"),
    ],
)
def test_the_first_violation_is_named_without_quoting_the_answer(
    value: Any, problem: str | None
) -> None:
    assert check_json_schema(value, CITY) == problem


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "https://example.com/other"},
        {"$ref": "#/$defs/gone"},
        {"type": "text"},
        {"description": "a" * 300_000},
        "nonsense",
        7,
    ],
)
def test_a_schema_that_cannot_be_used_fails_no_answer(schema: Any) -> None:
    """It is never fetched either."""
    assert check_json_schema("b", schema) is None


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"allOf": [{"$ref": "#"}, {"$ref": "#"}]},
        {"type": "string", "pattern": "^(a+)+$"},
    ],
)
def test_a_hostile_schema_neither_hangs_nor_crashes(schema: Any) -> None:
    check_json_schema("a" * 5000 + "b", schema)
    value: Any = []
    for _ in range(500):
        value = [value]
    check_json_schema(value, schema)
