"""The subset of JSON Schema, beside the reference implementation."""

from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sophia.serving.json_schema import fit

CITY = {
    "type": "object",
    "title": "City",
    "properties": {
        "name": {"type": "string", "minLength": 1},
        "people": {"type": ["integer", "null"], "minimum": 0},
        "kind": {"enum": ["town", "city", 1]},
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
        ([], "the value is not of type object"),
        ({}, "`name` is missing"),
        ({"name": ""}, "`name` breaks its minLength"),
        ({"name": "Ulm", "people": -1}, "`people` breaks its minimum"),
        ({"name": "Ulm", "people": True}, "`people` is not of type integer or null"),
        ({"name": "Ulm", "people": 1.5}, "`people` is not of type integer or null"),
        ({"name": "Ulm", "kind": True}, "`kind` is none of the allowed values"),
        ({"name": "Ulm", "twins": ["a", 8]}, "`twins[1]` fits none of its alternatives"),
        ({"name": "Ulm", "twins": ["a", "b", "c"]}, "`twins` breaks its maxItems"),
        ({"name": "Ulm", "river": "Danube"}, "`river` is not allowed"),
    ],
)
def test_what_does_not_fit_is_named(value: Any, problem: str | None) -> None:
    assert fit(value, CITY).problem == problem
    assert jsonschema.Draft202012Validator(CITY).is_valid(value) == (problem is None)


@pytest.mark.parametrize(
    ("schema", "unchecked"),
    [
        ({"type": "string", "pattern": "^a"}, ("pattern",)),
        ({"type": "string", "format": "date"}, ("format",)),
        ({"$ref": "https://example.com/other"}, ("$ref",)),
        ({"$ref": "#/$defs/gone"}, ("$ref",)),
        ({"type": "text"}, ("type",)),
        ({"oneOf": [{"type": "string"}, {"pattern": "b"}]}, ("oneOf", "pattern")),
        ({"$ref": "#"}, ("size",)),
        ({"allOf": [{"$ref": "#"}, {"$ref": "#"}]}, ("size",)),
        ("nonsense", ("schema",)),
    ],
)
def test_what_is_not_checked_is_said(schema: Any, unchecked: tuple[str, ...]) -> None:
    """A keyword outside the subset never fails an answer, and never passes in silence."""
    found = fit("b", schema)
    assert found.problem is None and found.unchecked == unchecked


scalars = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([0.5, 1.0, "a", "bc"])
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("xyz"), inner)
)
kinds = st.sampled_from(["object", "array", "string", "number", "integer", "boolean", "null"])
leaves = st.booleans() | st.fixed_dictionaries(
    {},
    optional={
        "type": kinds | st.lists(kinds, min_size=1, max_size=3, unique=True),
        "enum": st.lists(scalars, min_size=1, max_size=4, unique_by=repr),
        "const": scalars,
        "minimum": st.integers(-2, 2),
        "exclusiveMaximum": st.integers(-2, 2),
        "maxLength": st.integers(0, 2),
        "minItems": st.integers(0, 2),
    },
)
schemas = st.recursive(
    leaves,
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "type": kinds,
            "properties": st.dictionaries(st.sampled_from("xyz"), inner, max_size=3),
            "required": st.lists(st.sampled_from("xyz"), unique=True),
            "additionalProperties": inner,
            "items": inner,
            "anyOf": st.lists(inner, min_size=1, max_size=3),
            "allOf": st.lists(inner, min_size=1, max_size=2),
        },
    ),
    max_leaves=8,
)


@given(values, schemas)
def test_it_agrees_with_the_reference_implementation(value: Any, schema: Any) -> None:
    found = fit(value, schema)
    assert not found.unchecked
    assert (found.problem is None) == jsonschema.Draft202012Validator(schema).is_valid(value)
