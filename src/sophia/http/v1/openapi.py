"""The OpenAPI 3.1 document, built from the route table and the types that parse the bodies."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import msgspec

from sophia import __version__
from sophia.http.app import Handler

_ERRORS = {
    "400": "The request must change",
    "401": "No valid key",
    "402": "The budget does not cover it",
    "403": "This key may not do that",
    "404": "No such model, route or id",
    "405": "Wrong method",
    "408": "The request took too long to arrive",
    "413": "The body is too long",
    "429": "Every upstream is out of capacity, or too many connections",
    "431": "The head is too long",
    "502": "Every upstream failed",
    "503": "Sophia or every upstream is overloaded",
    "504": "Every upstream was too slow",
}
_ERROR_SCHEMA = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "code", "metadata"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": "integer"},
                "metadata": {"type": "object", "required": ["error_type", "fault"]},
            },
        }
    },
}


class RouteDescription(NamedTuple):
    """One route: its handler, the type of its body and the parameters of its query string.

    `errors` lists the error statuses of a route outside the data plane.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    query: tuple[str, ...] = ()
    body: type | None = None
    errors: tuple[str, ...] = ()


def build_openapi_document(
    data_plane: Iterable[RouteDescription], operations: Iterable[RouteDescription]
) -> dict[str, Any]:
    """Return the whole document; the data plane's routes stand under /api/v1, too."""
    bodies = dict.fromkeys(route.body for route in data_plane if route.body is not None)
    _, components = msgspec.json.schema_components(
        bodies, ref_template="#/components/schemas/{name}"
    )
    paths = {f"/v1{route.path}": {route.method.lower(): _describe(route)} for route in data_plane}
    for route in operations:
        answers = {status: {"description": route.summary} for status in ("200", *route.errors)}
        described = {"summary": route.summary, "responses": answers, "security": []}
        paths[route.path] = {"get": described}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Sophia", "version": __version__, "license": {"name": "Apache-2.0"}},
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}, {"header": []}],
        "paths": paths,
        "components": {
            "schemas": {**components, "Error": _ERROR_SCHEMA},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


def _describe(route: RouteDescription) -> dict[str, Any]:
    answers = {"200": {"description": "The answer", "content": {"application/json": {}}}}
    for status, about in _ERRORS.items():
        answers[status] = {"description": about, "content": _json_of("Error")}
    name = route.path.strip("/").replace("/", "_").replace("{id}", "one")
    described = {"summary": route.summary, "responses": answers}
    if route.body is not None:
        body = {"required": True, "content": _json_of(route.body.__name__)}
        return described | {"operationId": name, "requestBody": body}
    parameters = [_parameter(name, "query") for name in route.query]
    if "{id}" in route.path:
        parameters.append(_parameter("id", "path"))
    return described | {"operationId": f"get_{name}", "parameters": parameters}


def _json_of(schema: str) -> dict[str, Any]:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}


def _parameter(name: str, place: str) -> dict[str, Any]:
    schema = {"type": "string"} if name == "id" else {"type": "integer", "minimum": 0}
    return {"name": name, "in": place, "required": name == "id", "schema": schema}
