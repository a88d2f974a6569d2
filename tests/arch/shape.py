"""Sizes, names and calls of the modules below src/, read from their syntax trees.

`python tests/arch/shape.py` prints a list that no test limits: the file names that repeat.
"""

import ast
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "sophia"
MODULES = sorted(SOURCE.rglob("*.py"))
MAX_POSITIONAL = 6
MAX_POSITIONAL_FIELDS = 4

Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@cache
def parse(path: Path) -> ast.Module:
    """Return the syntax tree of a module."""
    return ast.parse(path.read_text())


def place(path: Path, node: ast.AST | None = None) -> str:
    """Return a node's module and line, for a message."""
    line = getattr(node, "lineno", 1)
    return f"{path.relative_to(SOURCE)}:{line}"


def nodes(*kinds: type[ast.AST]) -> Iterator[tuple[Path, ast.AST]]:
    """Yield each node of the given kinds with its module."""
    for path in MODULES:
        yield from ((path, node) for node in ast.walk(parse(path)) if isinstance(node, kinds))


def imported_packages(tree: ast.Module) -> Iterator[str]:
    """Yield the top-level package of each import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


def module_sizes() -> dict[str, int]:
    """Return the number of lines of each module."""
    return {place(path): len(path.read_text().splitlines()) for path in MODULES}


def function_sizes() -> dict[str, int]:
    """Return the number of lines of each function, docstring included."""
    return {
        f"{place(path, node)} {node.name}": (node.end_lineno or node.lineno) - node.lineno + 1
        for path, node in nodes(ast.FunctionDef, ast.AsyncFunctionDef)
        # A step of the schema is a list of tables, of any length.
        if path.parent.name != "versions"
    }


def folder_sizes() -> dict[str, int]:
    """Return the number of modules in each folder, `__init__` included."""
    sizes: dict[str, int] = defaultdict(int)
    for path in MODULES:
        sizes[str(path.parent.relative_to(SOURCE))] += 1
    return sizes


def public_classes() -> dict[str, list[str]]:
    """Return the places at which each public class name is defined."""
    places: dict[str, list[str]] = defaultdict(list)
    for path in MODULES:
        for node in parse(path).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places[node.name].append(place(path, node))
    return places


def stems() -> dict[str, list[str]]:
    """Return the modules of each file name."""
    places: dict[str, list[str]] = defaultdict(list)
    for path in MODULES:
        if path.stem != "__init__":
            places[path.stem].append(str(path.relative_to(SOURCE)))
    return places


def positional_calls() -> Iterator[str]:
    """Yield constructor calls of our own types with too many positional arguments."""
    own = {node.name for _, node in nodes(ast.ClassDef)}
    for path, node in nodes(ast.Call):
        name = getattr(node.func, "id", getattr(node.func, "attr", ""))
        starred = any(isinstance(argument, ast.Starred) for argument in node.args)
        if name in own and not starred and len(node.args) > MAX_POSITIONAL:
            yield f"{place(path, node)} {name} ({len(node.args)})"


def positional_types() -> Iterator[str]:
    """Yield structs and dataclasses of more than four fields that are not `kw_only`."""
    for path, node in nodes(ast.ClassDef):
        flags = {keyword.arg for keyword in node.keywords}
        decorators = " ".join(ast.unparse(decorator) for decorator in node.decorator_list)
        is_struct = any(ast.unparse(base).endswith("Struct") for base in node.bases)
        by_position = (is_struct and not flags & {"kw_only", "array_like"}) or (
            "dataclass" in decorators and "kw_only" not in decorators
        )
        fields = [
            item
            for item in node.body
            if isinstance(item, ast.AnnAssign) and "ClassVar" not in ast.unparse(item.annotation)
        ]
        if by_position and len(fields) > MAX_POSITIONAL_FIELDS:
            yield f"{place(path, node)} {node.name} ({len(fields)})"


def docstrings() -> Iterator[tuple[str, str]]:
    """Yield the place and the text of each docstring."""
    for path, node in nodes(*Documented.__args__):
        if text := ast.get_docstring(node):
            yield place(path, node), text


def repeated(places: dict[str, list[str]]) -> dict[str, list[str]]:
    """Return the entries with more than one place."""
    return {name: found for name, found in places.items() if len(found) > 1}


def percentile(values: Iterable[int], share: int) -> int:
    """Return the value that `share` percent of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * share // 100)]


if __name__ == "__main__":
    for stem, paths in sorted(repeated(stems()).items()):
        print(f"{stem}: {', '.join(paths)}")
