"""The data folder's secrets: the pepper, and fresh keys with the rows that stand for them."""

import os
import secrets
import time
from pathlib import Path
from typing import IO

from sophia.adapters.store import folder_lock
from sophia.config import Settings
from sophia.core.errors import ConfigError
from sophia.core.rows import KeyRow
from sophia.tenants.keys import Scope, digest_key, generate_key, parse_key_id

_PEPPER = "pepper"


def ensure_data_folder(settings: Settings) -> Path:
    """Return the data folder, made if need be. Raises ConfigError when it cannot be."""
    path = Path(settings.data_dir)
    try:
        # `mode` does not apply to parents, and the sandbox's folder has one that holds keys too.
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"`data_dir`: {path} cannot be made: {error.strerror}") from None
    return path


def has_pepper(data: Path) -> bool:
    """Return whether a data folder has its secret already."""
    return (data / _PEPPER).exists()


def load_pepper(data: Path) -> bytes:
    """Return the secret that key digests are made with; made on first use, readable by us only."""
    path = data / _PEPPER
    if not path.exists():
        write_secret(path, secrets.token_bytes(32))
    return path.read_bytes()


def write_secret(path: Path, content: bytes) -> None:
    """Write a new file that only its owner may read."""
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    # Whole or not at all: half a pepper would lock every key out.
    fresh.rename(path)


def create_key(
    data: Path,
    name: str,
    scope: Scope = "inference",
    *,
    daily_budget_nano: int | None = None,
    per_request_nano: int | None = None,
) -> tuple[str, KeyRow]:
    """Return a fresh key and the row that stands for it; limits in nano-dollars."""
    token = generate_key(secrets.token_bytes(42), scope)
    row = KeyRow(
        id=parse_key_id(token.encode()) or "",
        digest=digest_key(token.encode(), load_pepper(data)),
        name=name,
        scope=scope,
        daily_budget_nano=daily_budget_nano,
        per_request_nano=per_request_nano,
        created_ms=time.time_ns() // 1_000_000,
    )
    return token, row


def lock_for_serving(data: Path) -> IO[bytes]:
    """Return a lock on a data folder, held until it is closed. Raises ConfigError."""
    return folder_lock.lock_for_serving(data)


def is_served(data: Path) -> bool:
    """Return whether a running Sophia serves from a data folder."""
    return folder_lock.is_served(data)


def find_server(data: Path) -> int | None:
    """Return the process that serves from a data folder, if the system shows it."""
    return folder_lock.find_server(data)
