"""Keep what is known fresh: the catalogue from its upstream, the rules from their file."""

import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from sophia.catalogue.catalogue import Catalogue
from sophia.catalogue.profiles import CatalogueError
from sophia.catalogue.refresh import changes, refreshed
from sophia.core.failures import UpstreamFailure
from sophia.core.ports import Upstream
from sophia.routing.pool import Pool
from sophia.routing.rulebook import RuleBookError, parse
from sophia.routing.rules import RuleBook
from sophia.serving.desk import Desk

log = logging.getLogger("sophia.reload")


def pool_of(catalogue: Catalogue, also: tuple[str, ...]) -> Pool:
    """Return the models to choose from; names that are no longer listed drop out."""
    others = [found.model for name in also if (found := catalogue.resolve(name)) is not None]
    return Pool.of((*catalogue.profiles, *others))


def read_rules(text: str, catalogue: Catalogue) -> RuleBook:
    """Return the rules in `text`, with names resolved. Raises RuleBookError."""

    def known(name: str) -> str | None:
        found = catalogue.resolve(name)
        return found.model.id if found is not None else None

    return parse(text, known, catalogue.nearest)


class CatalogueRefresh:
    """Fetches the listing; on any fault the last good catalogue stays."""

    def __init__(self, desk: Desk, upstream: Upstream, keep: Callable[[bytes], None]) -> None:
        self._desk = desk
        self._upstream = upstream
        self._keep = keep

    async def __call__(self) -> None:
        """Fetch once and take over what is new."""
        current = self._desk.knowledge
        try:
            body = await self._upstream.get("/models")
            today = datetime.fromtimestamp(self._desk.books.clock.wall(), UTC).date()
            named = [current.catalogue.get(id) for id in self._desk.upstreams.by_model]
            own = [model for model in named if model is not None]
            fresh = refreshed(current.catalogue, body, today.isoformat(), own)
        except (UpstreamFailure, CatalogueError) as error:
            log.warning("the catalogue of %s stays: %s", current.catalogue.date, error)
            return
        what = changes(current.catalogue, fresh)
        self._desk.knowledge = replace(
            current,
            catalogue=fresh,
            pool=pool_of(fresh, current.also),
            resolved={},
            seats={},
        )
        self._keep(body)
        log.info(
            "catalogue refreshed: %d models, %d added, %d removed, %d repriced",
            len(fresh.models),
            len(what.added),
            len(what.removed),
            len(what.repriced),
        )
        for warning in fresh.warnings:
            log.warning("catalogue: %s", warning)


class RulesReload:
    """Reads the rules file again when it changes; a broken one is reported and not taken."""

    def __init__(self, desk: Desk, path: Path) -> None:
        self._desk = desk
        self._path = path
        self._seen = _stamp(path)

    async def __call__(self) -> None:
        """Look once."""
        stamp = _stamp(self._path)
        if stamp == self._seen or stamp is None:
            return
        self._seen = stamp
        current = self._desk.knowledge
        try:
            rulebook = read_rules(self._path.read_text(), current.catalogue)
        except (RuleBookError, OSError, UnicodeDecodeError) as error:
            log.error("%s is not taken, the last good rules stay:\n%s", self._path, error)
            return
        self._desk.knowledge = replace(current, rulebook=rulebook)
        log.info("%s: %d rules in force", self._path, len(rulebook.rules))


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size
