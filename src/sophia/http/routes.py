"""The table of routes, and the router; the data plane stands under both /v1 and /api/v1."""

from sophia.core.errors import MethodNotAllowed, NotFound, SophiaError
from sophia.http.app import App, Route
from sophia.http.v1 import account, chat, decisions, models, operations
from sophia.http.v1.bodies import ChatBody, CompletionBody, EmbeddingBody, FeedbackBody
from sophia.http.v1.openapi import RouteDescription, build_openapi_document
from sophia.http.wire import HttpRequest, ResponseWriter, send_json


async def get_openapi(app: App, incoming: HttpRequest, reply: ResponseWriter) -> None:
    """Answer `GET /openapi.json`."""
    await send_json(reply, build_openapi_document(DATA_PLANE, OPERATIONS))


_chat = chat.build_handler("chat/completions")
_completion = chat.build_handler("completions")
_embedding = chat.build_handler("embeddings")
DATA_PLANE = (
    RouteDescription("POST", "/chat/completions", _chat, "Answer a conversation", body=ChatBody),
    RouteDescription("POST", "/completions", _completion, "Complete a text", body=CompletionBody),
    RouteDescription("POST", "/embeddings", _embedding, "Embed texts", body=EmbeddingBody),
    RouteDescription(
        "POST", "/route", decisions.explain_route, "Explain without calling", body=ChatBody
    ),
    RouteDescription(
        "POST", "/feedback", decisions.create_feedback, "Rate a decision", body=FeedbackBody
    ),
    RouteDescription(
        "GET", "/models", models.list_models, "List the models", query=("offset", "limit")
    ),
    RouteDescription("GET", "/models/health", models.list_health, "Show which models are healthy"),
    RouteDescription("GET", "/models/{id}", models.get_model, "Describe a model"),
    RouteDescription(
        "GET", "/key", account.get_key_usage, "Show the budget and spending of this key"
    ),
    RouteDescription(
        "GET", "/generation", account.get_generation, "Show the cost of a call", query=("id",)
    ),
    RouteDescription("GET", "/decisions/{id}", decisions.get_decision, "Explain a past decision"),
)
OPERATIONS = (
    RouteDescription("GET", "/health", operations.get_health, "Show every process that serves"),
    RouteDescription(
        "GET", "/health/live", operations.get_liveness, "Check that the process responds"
    ),
    RouteDescription(
        "GET", "/health/ready", operations.get_readiness, "Check readiness", errors=("503",)
    ),
    RouteDescription("GET", "/metrics", operations.get_metrics, "Prometheus metrics"),
    RouteDescription("GET", "/openapi.json", get_openapi, "This document"),
    RouteDescription("GET", "/", operations.get_index, "Name, version and entry points"),
)


PROBES = frozenset({"/health/live", "/health/ready"})


class Router:
    """Handlers by method and path; `{id}` matches the rest of a path, slashes included.

    `static_paths` maps request targets without a query to the paths of routes without `{id}`;
    `id_stems` are the beginnings of all others.
    """

    def __init__(self) -> None:
        prefixed = [("/v1", DATA_PLANE), ("/api/v1", DATA_PLANE), ("", OPERATIONS)]
        self._exact: dict[tuple[bytes, str], Route] = {}
        self._parametrized: list[tuple[str, bytes, Route]] = []
        for prefix, descriptions in prefixed:
            for each in descriptions:
                route = Route(each.handler, needs_key=descriptions is DATA_PLANE)
                method, (stem, brace, _) = each.method.encode(), each.path.partition("{")
                if brace:
                    self._parametrized.append((prefix + stem, method, route))
                else:
                    self._exact[method, prefix + stem] = route
        self.static_paths = {path.encode(): path for _, path in self._exact}
        self.id_stems = tuple(stem.encode() for stem, _, _ in self._parametrized)

    def find(self, method: bytes, path: str) -> Route:
        """Return the route; of an unknown one the handler raises NotFound or MethodNotAllowed."""
        effective = b"GET" if method == b"HEAD" else method
        route = self._exact.get((effective, path))
        if route is not None:
            return route
        methods = set()
        for stem, allowed, candidate in self._parametrized:
            if path.startswith(stem) and len(path) > len(stem):
                if allowed == effective:
                    return candidate
                methods.add(allowed)
        methods |= {allowed for allowed, known in self._exact if known == path}
        if methods:
            if b"GET" in methods:
                methods.add(b"HEAD")
            names = tuple(name.decode() for name in sorted(methods))
            return _refuse_with(
                MethodNotAllowed(
                    f"{path} does not take {method.decode('latin-1')[:20]}; "
                    f"use {' or '.join(names)}.",
                    names,
                )
            )
        return _refuse_with(
            NotFound(
                f"There is no route {path[:200]!r}. The base URL ends in /v1, "
                "for example http://localhost:8080/v1; `GET /openapi.json` lists the routes."
            )
        )


def _refuse_with(error: SophiaError) -> Route:
    async def refuse(app: App, incoming: HttpRequest, reply: ResponseWriter) -> None:
        raise error

    return Route(refuse, needs_key=False)
