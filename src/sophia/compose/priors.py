"""What is believed of models before any outcome: as shipped, or as newer files have it."""

import hashlib
import logging
from collections.abc import Callable, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path

import msgspec
from msgspec import Struct

from sophia.catalogue.catalogue import Catalogue
from sophia.compose.keys import write_secret
from sophia.config import ConfigError
from sophia.learning.benchmarks import Names, Score, decode_cells, joined, made_of, read_names
from sophia.learning.exports import Source, read_scores
from sophia.learning.priors import Book
from sophia.learning.priors import decode as read_book
from sophia.learning.tables import Unreadable

log = logging.getLogger("sophia.learning")

FILE = "priors.json"


class Refreshed(Struct, frozen=True, forbid_unknown_fields=True):
    """Priors that were made of newer files, and of which; `seal` is the SHA-256 of all the rest."""

    made_ms: int
    sources: tuple[Source, ...]
    book: Book
    seal: str = ""


def shelf_of(data: Path | None) -> Callable[[], Book]:
    """Return what gives the priors of today: those kept in `data`, else the shipped ones.

    A file that was changed is read again; what cannot be read while serving changes nothing.
    """
    last: list[tuple[tuple[int, int] | None, Book]] = []

    def book() -> Book:
        path = None if data is None else data / FILE
        stamp = None
        if path is not None and path.exists():
            found = path.stat()
            stamp = found.st_mtime_ns, found.st_size
        if not last or last[-1][0] != stamp:
            try:
                kept = None if path is None else kept_in(path.parent)
            except ConfigError as error:
                if not last:
                    raise
                log.warning("the priors stay as they are: %s", error)
                last[:] = [(stamp, last[-1][1])]
            else:
                last[:] = [(stamp, shipped() if kept is None else kept.book)]
        return last[-1][1]

    return book


@cache
def shipped() -> Book:
    """Return the priors that Sophia comes with."""
    return read_book(_blob("priors.json"))


def kept_in(data: Path) -> Refreshed | None:
    """Return the refreshed priors in a data folder, None when there are none.

    Raises ConfigError when they are not as they were written.
    """
    path = data / FILE
    try:
        kept = msgspec.json.decode(path.read_bytes(), type=Refreshed)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}. {_WAY_OUT}") from error
    if kept.seal != _seal(kept):
        raise ConfigError(f"{path} was changed after it was written. {_WAY_OUT}")
    return kept


def refresh(data: Path, paths: Sequence[Path], catalogue: Catalogue, now_ms: int) -> Refreshed:
    """Join newer benchmark files to the shipped tables, and keep the priors that all come to.

    Raises:
        Unreadable: a file that cannot be used, or priors that make no sense; nothing is changed.
    """
    names = read_names(_blob("priors.yaml").decode())
    named = _naming(names, catalogue)
    sources: list[Source] = []
    scores: list[Score] = []
    owners: list[Path] = []
    for path in paths:
        source, said = read_scores(path, named)
        sources.append(source)
        scores += said
        owners += [path] * len(said)
    known = decode_cells(_blob("benchmarks.json"))
    tables = {one.source for path, one in zip(owners, scores, strict=True) if path.is_dir()}
    cells = joined(known, scores, names.released)
    listed = {model.id for model in catalogue.models}
    book = made_of(cells, names, listed, tables.union(known.sources))
    _check(book)
    made = Refreshed(now_ms, tuple(sources), book)
    made = msgspec.structs.replace(made, seal=_seal(made))
    write_secret(data / FILE, msgspec.json.format(msgspec.json.encode(made), indent=1) + b"\n")
    return made


def forget(data: Path) -> bool:
    """Go back to the shipped priors; return whether there were others."""
    path = data / FILE
    there = path.exists()
    path.unlink(missing_ok=True)
    return there


_WAY_OUT = "`sophia learn --priors shipped` goes back to the ones that Sophia comes with."


def _naming(names: Names, catalogue: Catalogue) -> Callable[[str], str]:
    """Return what gives a model's name of today: exactly the same model, never its successor."""

    def named(told: str) -> str:
        if told in names.same:
            return names.same[told]
        found = catalogue.resolve(told)
        if found is not None:
            model = found.model
            if told.lower() in {model.id.lower(), (model.canonical_slug or "").lower()}:
                return model.id
        return told

    return named


def _check(book: Book) -> None:
    """Raise Unreadable unless every standing is a score with a spread, and nobody was lost."""
    old = shipped()
    lost = sorted(set(old.arms) - set(book.arms)) + sorted(set(old.kinds) - set(book.kinds))
    every = [*book.arms.values(), *book.families.values(), book.stranger]
    if lost or any(
        not (0.0 <= mean <= 1.0 and 0.0 < sd <= 1.0)
        for one in every
        for mean, sd in zip(one.mean, one.sd, strict=True)
    ):
        raise Unreadable(
            "These files and the shipped tables together make no sense: "
            + (f"{', '.join(lost[:5])} would be lost." if lost else "some scores are none.")
        )


def _seal(kept: Refreshed) -> str:
    plain = msgspec.structs.replace(kept, seal="")
    return hashlib.sha256(msgspec.json.encode(plain, order="deterministic")).hexdigest()


def _blob(name: str) -> bytes:
    return files("sophia.routing").joinpath("data", name).read_bytes()
