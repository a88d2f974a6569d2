"""Modules that some systems lack are imported where their absence is handled."""

import ast
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "sophia"
PLATFORM_BOUND = frozenset({"uvloop", "fcntl", "resource", "pwd", "grp", "termios"})
# Imports without a guard: the file, and the reason that it needs none.
UNGUARDED: dict[str, str] = {}


class Imports(ast.NodeVisitor):
    """Collects the platform-bound imports of a module, and whether each is guarded."""

    def __init__(self) -> None:
        self.found: list[tuple[str, bool]] = []
        self._guards = 0

    def visit_Import(self, node: ast.Import) -> None:
        self._note(alias.name for alias in node.names)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if node.module and not node.level:
            self._note([node.module])

    def visit_Try(self, node: ast.Try) -> None:
        catches = any(
            {"ImportError", "ModuleNotFoundError"} & names(handler.type)
            for handler in node.handlers
        )
        self._within(node.body, guarded=catches)
        self._within([*node.handlers, *node.orelse, *node.finalbody], guarded=False)

    def visit_If(self, node: ast.If) -> None:
        self._within(node.body, guarded=bool({"platform", "TYPE_CHECKING"} & names(node.test)))
        self._within(node.orelse, guarded="platform" in names(node.test))

    def _within(self, nodes: list[ast.AST] | list[ast.stmt], *, guarded: bool) -> None:
        self._guards += guarded
        for node in nodes:
            self.visit(node)
        self._guards -= guarded

    def _note(self, modules: Iterator[str] | list[str]) -> None:
        for module in modules:
            if module.split(".")[0] in PLATFORM_BOUND:
                self.found.append((module, self._guards > 0))


def names(node: ast.AST | None) -> set[str]:
    """Return the names and attributes in an expression."""
    inside = list(ast.walk(node)) if node is not None else []
    return {part.id for part in inside if isinstance(part, ast.Name)} | {
        part.attr for part in inside if isinstance(part, ast.Attribute)
    }


def imports(text: str) -> list[tuple[str, bool]]:
    visitor = Imports()
    visitor.visit(ast.parse(text))
    return visitor.found


def test_platform_bound_imports_are_guarded_or_have_a_reason() -> None:
    """`import sophia` works on every system; what a system lacks is replaced or left out."""
    found = {
        path.relative_to(SOURCE).as_posix(): imports(path.read_text())
        for path in sorted(SOURCE.rglob("*.py"))
    }
    bare = {path for path, seen in found.items() if not all(guarded for _, guarded in seen)}

    assert {module for seen in found.values() for module, _ in seen} >= {"uvloop", "fcntl"}
    assert bare == UNGUARDED.keys()
    assert all(UNGUARDED.values())


def test_a_bare_import_is_noticed() -> None:
    """The check above sees imports in functions, in handlers and after a guard."""
    text = """
import os, fcntl
try:
    import uvloop
except ImportError:
    import resource
if sys.platform != "win32":
    import termios
def late():
    from pwd import getpwnam
"""
    assert imports(text) == [
        ("fcntl", False),
        ("uvloop", True),
        ("resource", False),
        ("termios", True),
        ("pwd", False),
    ]
