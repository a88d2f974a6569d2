"""A ledger's file as commands read it, without serving: what was used, whether it is whole."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sophia.adapters.store.driver import SAFE_SINCE, is_safe, sqlite
from sophia.adapters.store.migrate import HEAD, current
from sophia.adapters.store.report import GROUPS, By, Used, bills, key_names, used
from sophia.adapters.store.writer import connect

__all__ = [
    "GROUPS",
    "By",
    "Examined",
    "Library",
    "Unreadable",
    "Usage",
    "Used",
    "bills",
    "examined",
    "library",
    "usage_of",
]


class Unreadable(Exception):
    """The ledger's file cannot be read; the message says why."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What was used by group and by day, and the keys' names by their ids."""

    rows: Sequence[Used]
    daily: Sequence[Used]
    names: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Library:
    """The SQLite library in use, and the first release that two connections cannot corrupt."""

    version: str
    origin: str
    safe: bool
    safe_since: tuple[int, ...] = SAFE_SINCE


@dataclass(frozen=True, slots=True)
class Examined:
    """What a ledger's file looks like.

    `verdict` is SQLite's, "ok" for a whole file; `schema` the file's, None before the first, and
    `head` this release's; `keys` how many inference keys are in force.
    """

    verdict: str
    schema: str | None
    head: str
    keys: int


def usage_of(path: Path, by: By, since: str) -> Usage | None:
    """Return what was used since the UTC day `since`; None when the file is of another release.

    Raises Unreadable when the file is damaged.
    """
    try:
        if current(path) != HEAD:
            return None
        names = key_names(path) if by == "key" else {}
        return Usage(used(path, by, since), used(path, "day", since), names)
    except sqlite().Error as error:
        raise Unreadable(str(error)) from error


def examined(path: Path) -> Examined:
    """Look through a ledger's file, changing nothing. Raises Unreadable when it is damaged."""
    try:
        revision = current(path)
        connection = connect(path, read_only=True)
        try:
            verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            keys = revision and connection.execute(
                "SELECT COUNT(*) FROM keys WHERE revoked_ms IS NULL AND scope = 'inference'"
            )
            active = int(keys.fetchone()[0]) if keys else 0
        finally:
            connection.close()
    except sqlite().Error as error:
        raise Unreadable(str(error)) from error
    return Examined(str(verdict), revision, HEAD, active)


def library() -> Library:
    """Return which SQLite library is in use."""
    module = sqlite()
    return Library(module.sqlite_version, module.__name__.partition(".")[0], is_safe(module))
