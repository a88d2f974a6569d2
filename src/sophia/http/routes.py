"""Which handler answers which path; the same routes stand under /v1 and /api/v1."""

from sophia.core.errors import MethodNotAllowed, NotFound
from sophia.http.front import Handler
from sophia.http.v1 import account, chat, decisions, models, operations

DATA_PLANE: tuple[tuple[str, str, Handler], ...] = (
    ("POST", "/chat/completions", chat.chat),
    ("POST", "/completions", chat.completions),
    ("POST", "/embeddings", chat.embeddings),
    ("GET", "/models", models.listing),
    ("GET", "/models/{id}", models.one),
    ("GET", "/key", account.key),
    ("GET", "/generation", account.generation),
    ("POST", "/route", decisions.route),
    ("GET", "/decisions/{id}", decisions.decision),
    ("POST", "/feedback", decisions.feedback),
)
OPERATIONS: tuple[tuple[str, str, Handler], ...] = (
    ("GET", "/health/live", operations.live),
    ("GET", "/health/ready", operations.ready),
    ("GET", "/metrics", operations.metrics),
    ("GET", "/openapi.json", operations.openapi),
    ("GET", "/", operations.welcome),
)
PREFIXES = ("/v1", "/api/v1")


class Router:
    """Finds handlers by method and path; `{id}` takes the rest of a path, slashes included.

    `plain` holds the paths of routes without `{id}` by the request target that is just that path.
    """

    def __init__(self) -> None:
        self._exact: dict[tuple[bytes, str], Handler] = {}
        self._open: list[tuple[str, bytes, Handler]] = []
        self._methods: dict[str, set[str]] = {}
        self.plain: dict[bytes, str] = {}
        for prefix in PREFIXES:
            for method, path, handler in DATA_PLANE:
                self._add(method, prefix + path, handler)
        for method, path, handler in OPERATIONS:
            self._add(method, path, handler)

    def _add(self, method: str, path: str, handler: Handler) -> None:
        stem, brace, _ = path.partition("{")
        if brace:
            self._open.append((stem, method.encode(), handler))
        else:
            self._exact[method.encode(), path] = handler
            self.plain[path.encode()] = path
            self._methods.setdefault(path, set()).add(method)

    def find(self, method: bytes, path: str) -> Handler:
        """Return the handler. Raises NotFound or MethodNotAllowed."""
        handler = self._exact.get((method, path))
        if handler is not None:
            return handler
        wanted = b"GET" if method == b"HEAD" else method
        for stem, allowed, candidate in self._open:
            if path.startswith(stem) and len(path) > len(stem) and wanted == allowed:
                return candidate
        if method == b"HEAD" and (b"GET", path) in self._exact:
            return self._exact[b"GET", path]
        raise self._refusal(method, path)

    def _refusal(self, method: bytes, path: str) -> NotFound | MethodNotAllowed:
        methods = self._methods.get(path, set())
        for stem, allowed, _ in self._open:
            if path.startswith(stem) and len(path) > len(stem):
                methods = methods | {allowed.decode()}
        if methods:
            return MethodNotAllowed(
                f"{path} does not take {method.decode('latin-1')[:20]}; "
                f"use {' or '.join(sorted(methods))}."
            )
        return NotFound(
            f"There is no route {path[:200]!r}. The base URL ends in /v1, "
            "for example http://localhost:8080/v1; `GET /openapi.json` lists the routes."
        )
