"""The OpenAPI 3.1 document of the data plane, made from the types that read the bodies."""

from typing import Any

import msgspec

from sophia import __version__
from sophia.http.v1.bodies import ChatBody, CompletionBody, EmbeddingBody, FeedbackBody

_BODIES = (ChatBody, CompletionBody, EmbeddingBody, FeedbackBody)
_POSTS: tuple[tuple[str, type, str, str], ...] = (
    ("/chat/completions", ChatBody, "Answer a conversation", "OpenAI and OpenRouter chat shape."),
    ("/completions", CompletionBody, "Complete a text", "OpenAI's legacy completions."),
    ("/embeddings", EmbeddingBody, "Embed texts", "A named embedding model's vectors."),
    ("/route", ChatBody, "Explain without calling", "The decision for a chat body."),
    ("/feedback", FeedbackBody, "Judge a decision", "Kept for the learning router."),
)
_GETS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("/models", "List the models", ("?offset", "?limit")),
    ("/models/{id}", "Describe a model", ("id",)),
    ("/key", "Show what this key may spend", ()),
    ("/generation", "Show what a call cost", ("?id",)),
    ("/decisions/{id}", "Explain a past decision", ("id",)),
)
_OPERATIONS = (
    ("/health/live", "Whether the process turns", ("200",)),
    ("/health/ready", "Whether it takes requests", ("200", "503")),
    ("/metrics", "Prometheus metrics", ("200",)),
    ("/openapi.json", "This document", ("200",)),
    ("/", "Where to go from here", ("200",)),
)
_ERRORS = {
    "400": "The request must change",
    "401": "No valid key",
    "402": "The budget does not pay",
    "403": "This key may not",
    "404": "No such model, route or id",
    "405": "Another method",
    "413": "The body is too long",
    "429": "Every upstream is out of capacity",
    "502": "Every upstream failed",
    "503": "Sophia or every upstream is overloaded",
    "504": "Every upstream was too slow",
}


def document() -> dict[str, Any]:
    """Return the whole document; the same routes stand under /api/v1."""
    _, components = msgspec.json.schema_components(
        _BODIES, ref_template="#/components/schemas/{name}"
    )
    paths: dict[str, Any] = {}
    for path, body, summary, about in _POSTS:
        paths[f"/v1{path}"] = {"post": _post(path, body, summary, about)}
    for path, summary, parameters in _GETS:
        paths[f"/v1{path}"] = {"get": _get(path, summary, parameters)}
    for path, summary, statuses in _OPERATIONS:
        answers = {status: {"description": summary} for status in statuses}
        paths[path] = {"get": {"summary": summary, "responses": answers, "security": []}}
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


def _post(path: str, body: type, summary: str, about: str) -> dict[str, Any]:
    return {
        "summary": summary,
        "description": about,
        "operationId": path.strip("/").replace("/", "_"),
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"$ref": f"#/components/schemas/{body.__name__}"}}
            },
        },
        "responses": _responses(),
    }


def _get(path: str, summary: str, parameters: tuple[str, ...]) -> dict[str, Any]:
    return {
        "summary": summary,
        "operationId": "get_" + path.strip("/").replace("/", "_").replace("{id}", "one"),
        "parameters": [_parameter(name) for name in parameters],
        "responses": _responses(),
    }


def _parameter(name: str) -> dict[str, Any]:
    if not name.startswith("?"):
        return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
    bare = name[1:]
    kind = {"type": "string"} if bare == "id" else {"type": "integer", "minimum": 0}
    return {"name": bare, "in": "query", "required": bare == "id", "schema": kind}


def _responses() -> dict[str, Any]:
    answers: dict[str, Any] = {
        "200": {"description": "The answer", "content": {"application/json": {}}}
    }
    for status, about in _ERRORS.items():
        answers[status] = {
            "description": about,
            "content": {
                "application/json": {"schema": {"$ref": "#/components/schemas/Error"}}
            },
        }
    return answers
