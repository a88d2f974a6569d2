"""The shape of the code: arrows point down, the core stands alone, and the tail stays short."""

import ast
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "sophia"
MODULES = sorted(path for path in SOURCE.rglob("*.py") if path.name != "__init__.py")


def lint_imports(source: Path) -> subprocess.CompletedProcess[str]:
    """Check the contracts of .importlinter on the package below `source`."""
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    command += ["--config", ROOT / ".importlinter"]
    environment = {**os.environ, "PYTHONPATH": str(source)}
    return subprocess.run(
        command, cwd=source, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        pytest.param(
            "core/money.py",
            "from sophia.routing import plan",
            "Arrows point down; every package has a place",
            id="an arrow up",
        ),
        pytest.param(
            "core/money.py",
            "import msgspec",
            "core stands on the standard library alone",
            id="a third party in core",
        ),
        pytest.param(
            "serving/walk.py",
            "import httptools",
            "Servers and HTTP clients are known to http and adapters only",
            id="a client in serving",
        ),
        pytest.param(
            "cli/keys.py",
            "from sophia.adapters import clock",
            "Adapters are named in compose only",
            id="an adapter in a command",
        ),
        pytest.param(
            "helpers/__init__.py",
            '"""Nowhere in the layers."""',
            "Arrows point down; every package has a place",
            id="a package without a place",
        ),
    ],
)
def test_a_planted_violation_is_seen(
    tmp_path: Path, module: str, line: str, contract: str
) -> None:
    """A contract that cannot fail protects nothing."""
    shutil.copytree(SOURCE, tmp_path / "sophia", ignore=shutil.ignore_patterns("__pycache__"))
    planted = tmp_path / "sophia" / module
    planted.parent.mkdir(exist_ok=True)
    before = planted.read_text() if planted.exists() else ""
    planted.write_text(f"{before}\n{line}\n")

    result = lint_imports(tmp_path)

    assert result.returncode != 0
    broken = f"{contract} BROKEN" in result.stdout
    assert broken or "sophia.helpers" in result.stdout + result.stderr, result.stdout


def test_the_contracts_hold() -> None:
    """Arrows point down."""
    result = lint_imports(SOURCE.parent)

    assert result.returncode == 0, result.stdout


def test_the_core_imports_the_standard_library_only() -> None:
    """Whatever the list in .importlinter forgets."""
    foreign = {
        f"{path.relative_to(SOURCE)}: {name}"
        for path in (SOURCE / "core").glob("*.py")
        for name in imported(ast.parse(path.read_text()))
        if name not in sys.stdlib_module_names and name != "sophia"
    }

    assert not foreign


def test_modules_stay_short() -> None:
    """Past 500 lines a module does too much; 95 of 100 stay within 350."""
    sizes = {str(path.relative_to(SOURCE)): lines(path) for path in MODULES}

    assert {name: size for name, size in sizes.items() if size > 500} == {}
    assert percentile(sizes.values(), 95) <= 350


def test_functions_stay_short() -> None:
    """None is over 60 lines, and 95 of 100 are within 35."""
    sizes = dict(function_sizes())

    assert {name: size for name, size in sizes.items() if size > 60} == {}
    assert percentile(sizes.values(), 95) <= 35


def test_every_module_says_what_it_is() -> None:
    """A module fits one sentence, its first docstring line."""
    silent = [path for path in MODULES if not ast.get_docstring(ast.parse(path.read_text()))]

    assert silent == []


def test_deciding_neither_waits_nor_looks_at_the_clock() -> None:
    """Decide and do are different files: routing is pure."""
    impure = []
    for path in sorted((SOURCE / "routing").rglob("*.py")):
        tree = ast.parse(path.read_text())
        waits = any(isinstance(node, ast.Await | ast.AsyncFunctionDef) for node in ast.walk(tree))
        reads = {"asyncio", "os", "random", "socket", "time"} & set(imported(tree))
        if waits or reads:
            impure.append((path.name, waits, reads))

    assert impure == []


def imported(tree: ast.Module) -> Iterator[str]:
    """Yield the top-level package of each import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


def lines(path: Path) -> int:
    """Count the lines of a file."""
    return len(path.read_text().splitlines())


def function_sizes() -> Iterator[tuple[str, int]]:
    """Yield each function's place and its length in lines, docstring included."""
    for path in MODULES:
        # A step of the schema is a list of tables, however long.
        if path.parent.name == "versions":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                last = node.end_lineno or node.lineno
                yield f"{path.relative_to(SOURCE)}:{node.lineno} {node.name}", last - node.lineno + 1


def percentile(values: Iterable[int], share: int) -> int:
    """Return the value that `share` percent of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * share // 100)]
