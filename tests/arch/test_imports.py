"""The contracts of .importlinter hold, and each of them fails on a planted violation."""

import ast
import configparser
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from shape import ROOT, SOURCE, imported_packages, parse

CONTRACTS = configparser.ConfigParser()
CONTRACTS.read(ROOT / ".importlinter")
PREFIX = "importlinter:contract:"
# Contract, module, planted line.
VIOLATIONS = [
    pytest.param("layers", "core/money.py", "from sophia.routing import plan", id="upwards"),
    pytest.param("layers", "config.py", "from sophia.ledger import cost", id="config upwards"),
    pytest.param(
        "layers",
        "sandbox/response/speed.py",
        "from sophia.testing import clock",
        id="between siblings",
    ),
    pytest.param("layers", "helpers/__init__.py", '"""Unplaced."""', id="an unplaced package"),
    pytest.param("serving", "serving/request.py", "from sophia.serving import pipeline"),
    pytest.param("serving", "serving/helpers.py", '"""Unplaced."""', id="an unplaced module"),
    pytest.param(
        "learning",
        "learning/feedback/sources.py",
        "from sophia.learning.online import policy",
        id="feedback knows the online policy",
    ),
    pytest.param(
        "routing", "routing/types.py", "from sophia.routing import plan", id="types know plans"
    ),
    pytest.param(
        "bandit",
        "routing/bandit/quality/noise.py",
        "from sophia.routing.bandit.performance import model",
        id="quality knows performance",
    ),
    pytest.param("http", "http/wire.py", "from sophia.http.v1 import chat", id="wire knows chat"),
    pytest.param(
        "http", "http/v1/chat.py", "from sophia.http import routes", id="a handler's route"
    ),
    pytest.param("http", "http/asgi.py", "from sophia.http import native", id="between servers"),
    pytest.param("core", "core/money.py", "import numpy", id="a third party in core"),
    pytest.param("frameworks", "serving/pipeline.py", "import httptools", id="a client"),
    pytest.param("frameworks", "learning/online/policy.py", "import uvicorn", id="a server"),
    pytest.param("storage", "serving/pipeline.py", "import sqlalchemy", id="a database"),
    pytest.param("storage", "compose/root.py", "import sqlite3", id="the standard library's"),
    pytest.param("storage", "jobs/timer.py", "import prometheus_client", id="telemetry"),
    pytest.param(
        "independence",
        "adapters/telemetry/logs.py",
        "from sophia.adapters.store import schema",
        id="telemetry knows the store",
    ),
    pytest.param(
        "independence",
        "adapters/webhook.py",
        "from sophia.adapters.upstreams import dialects",
        id="the webhook knows dialects",
    ),
    pytest.param(
        "adapters", "adapters/clock.py", "from sophia.learning import online", id="learning"
    ),
    pytest.param("adapters", "adapters/clock.py", "from sophia.serving import request"),
    pytest.param("composition", "cli/commands/keys.py", "from sophia.adapters import clock"),
    pytest.param("checkout", "learning/online/policy.py", "import lab.training", id="lab"),
    pytest.param("checkout", "cli/main.py", "from bench import looking", id="bench"),
]

PURE_PACKAGES = ("ledger", "routing", "tenants")
# What pure code may import: nothing here waits, or opens a file or socket, when it is used as
# `io.BytesIO` and `sys.intern` are. Ruff bans the clock of `datetime` and numpy's global generator.
PURE_IMPORTS = {
    "collections",
    "dataclasses",
    "datetime",
    "fnmatch",
    "hashlib",
    "hmac",
    "io",
    "itertools",
    "math",
    "msgspec",
    "numpy",
    "pycld2",
    "operator",
    "re",
    "sophia",
    "sys",
    "typing",
    "unicodedata",
    "yaml",
    "zlib",
}


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the package that a test may break and then repairs."""
    package = tmp_path_factory.mktemp("src") / "sophia"
    shutil.copytree(SOURCE, package, ignore=shutil.ignore_patterns("__pycache__", "data"))
    return package


def broken_contracts(package: Path) -> str:
    """Return the report of broken contracts on `package`; "" when all are kept."""
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache"]
    command += ["--config", ROOT / ".importlinter"]
    environment = {**os.environ, "PYTHONPATH": str(package.parent), "COLUMNS": "200"}
    result = subprocess.run(
        command, cwd=package.parent, env=environment, capture_output=True, text=True, check=False
    )
    assert "Contracts:" in result.stdout, result.stdout + result.stderr
    return result.stdout.partition("Broken contracts\n")[2]


def test_the_contracts_hold() -> None:
    """Imports point down."""
    assert broken_contracts(SOURCE) == ""


@pytest.mark.parametrize(("contract", "module", "line"), VIOLATIONS)
def test_a_planted_violation_is_seen(copied: Path, contract: str, module: str, line: str) -> None:
    """A contract that cannot fail protects nothing."""
    planted = copied / module
    before = planted.read_text() if planted.exists() else None
    planted.parent.mkdir(exist_ok=True)
    planted.write_text(f"{before or ''}\n{line}\n")

    report = broken_contracts(copied)

    if before is None:
        planted.unlink()
        if planted.name == "__init__.py":
            planted.parent.rmdir()
    else:
        planted.write_text(before)
    name = CONTRACTS[PREFIX + contract]["name"]
    _, heading, findings = report.partition(f"{name}\n{'-' * len(name)}\n")
    assert heading, report
    importer = ".".join(("sophia", *Path(module).with_suffix("").parts)).removesuffix(".__init__")
    assert importer in findings.partition("\n---")[0], report


def test_every_contract_has_a_planted_violation() -> None:
    """A new contract comes with its proof."""
    contracts = {section.removeprefix(PREFIX) for section in CONTRACTS if PREFIX in section}

    assert contracts == {case.values[0] for case in VIOLATIONS}


def test_the_core_imports_the_standard_library_and_msgspec_only() -> None:
    """Whatever the list in .importlinter forgets."""
    foreign = {
        f"{path.relative_to(SOURCE)}: {name}"
        for path in (SOURCE / "core").glob("*.py")
        for name in imported_packages(parse(path))
        if name not in sys.stdlib_module_names and name not in {"msgspec", "sophia"}
    }

    assert not foreign


def impurities(tree: ast.Module) -> set[str]:
    """Return what a module of pure code imports or awaits and may not."""
    waits = (ast.Await, ast.AsyncFunctionDef)
    found = {type(node).__name__ for node in ast.walk(tree) if isinstance(node, waits)}
    return found | (set(imported_packages(tree)) - PURE_IMPORTS)


def test_deciding_neither_waits_nor_looks_at_the_clock() -> None:
    """Decide and do are different files: routing, ledger and tenants are pure."""
    modules = [path for package in PURE_PACKAGES for path in (SOURCE / package).rglob("*.py")]
    impure = {
        str(path.relative_to(SOURCE)): found
        for path in modules
        if (found := impurities(parse(path)))
    }

    assert impure == {}


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("import asyncio, sqlite3, pathlib", {"asyncio", "sqlite3", "pathlib"}),
        ("from time import monotonic", {"time"}),
        ("import os.path", {"os"}),
        ("async def decide(): await plan()", {"AsyncFunctionDef", "Await"}),
    ],
)
def test_an_impurity_is_seen(line: str, found: set[str]) -> None:
    """A check that cannot fail protects nothing."""
    planted = (SOURCE / "tenants" / "budget.py").read_text() + line

    assert impurities(ast.parse(planted)) == found
