"""Reload of the catalogue from its upstream and of the rules from their file."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from sophia.catalogue.catalogue import Catalogue
from sophia.catalogue.profiles import CatalogueError
from sophia.catalogue.refresh import LISTING_FILE, diff_catalogues, refresh_catalogue, save_listing
from sophia.core.failures import UpstreamFailure
from sophia.learning.priors.book import load_shipped_priors, write_saved_priors
from sophia.learning.priors.refresh import refresh_priors
from sophia.routing.rules.parse import RuleBookError, read_rules
from sophia.serving.runtime import Runtime

log = logging.getLogger("sophia.reload")


async def reload_catalogue(runtime: Runtime, data: Path) -> None:
    """Fetch the catalogue and benchmarks, put them in force and keep them in `data`.

    A failure changes nothing.
    """
    current = runtime.knowledge
    try:
        body = await runtime.upstreams.default.get("/models")
        today = datetime.fromtimestamp(runtime.ledger.clock.wall(), UTC).date()
        own = filter(None, map(current.catalogue.get, runtime.upstreams.by_model))
        catalogue = refresh_catalogue(current.catalogue, body, today.isoformat(), own)
    except (UpstreamFailure, CatalogueError) as error:
        log.warning("the catalogue of %s stays in force: %s", current.catalogue.date, error)
        return
    runtime.knowledge = current.with_catalogue(catalogue)
    save_listing(data, body)
    log.info(
        "catalogue refreshed: %d models, %d added, %d removed, %d repriced",
        len(catalogue.models),
        *map(len, diff_catalogues(current.catalogue, catalogue)),
    )
    for warning in catalogue.warnings:
        log.warning("catalogue: %s", warning)
    if runtime.upstreams.default.can_fetch_usage:
        await _reload_priors(runtime, data)


class CatalogueFollower:
    """Reads the kept listing again when another process has fetched a newer one."""

    def __init__(self, runtime: Runtime, data: Path, load: Callable[[], Catalogue]) -> None:
        self._runtime = runtime
        self._path = data / LISTING_FILE
        self._load = load
        self._last_stamp = _stamp(self._path)

    async def __call__(self) -> None:
        """Check once."""
        stamp = _stamp(self._path)
        if stamp != self._last_stamp:
            self._last_stamp = stamp
            catalogue = await asyncio.to_thread(self._load)
            self._runtime.knowledge = self._runtime.knowledge.with_catalogue(catalogue)
            log.info("catalogue read again: %d models", len(catalogue.models))


async def _reload_priors(runtime: Runtime, data: Path) -> None:
    """Fetch newer benchmarks and keep the priors of models that only they cover in `data`.

    A failure changes nothing; models that are known already keep what was learned.
    """
    try:
        body = await runtime.upstreams.default.get("/benchmarks?source=artificial-analysis")
        now_ms = int(runtime.ledger.clock.wall() * 1000)
        saved = refresh_priors(load_shipped_priors(), body, now_ms)
    except (UpstreamFailure, msgspec.DecodeError) as error:
        log.info("no newer benchmarks: %s", error)
        return
    if saved is not None:
        write_saved_priors(data, saved)
        (source,) = saved.sources
        added = len(saved.priors.arms) - len(load_shipped_priors().table.arms)
        log.info("priors of %d more models (%s)", added, source.credit)


class RulesReload:
    """Reads the rules file again when it changes; an invalid file is logged and ignored."""

    def __init__(self, runtime: Runtime, path: Path) -> None:
        self._runtime = runtime
        self._path = path
        self._last_stamp = _stamp(path)

    async def __call__(self) -> None:
        """Check once."""
        stamp = _stamp(self._path)
        if stamp == self._last_stamp or stamp is None:
            return
        self._last_stamp = stamp
        current = self._runtime.knowledge
        try:
            rulebook = read_rules(self._path.read_text(), current.catalogue)
        except (RuleBookError, OSError, UnicodeDecodeError) as error:
            log.error("%s is invalid, the last valid rules stay in force:\n%s", self._path, error)
            return
        self._runtime.knowledge = replace(current, rulebook=rulebook)
        log.info("%s: %d rules in force", self._path, len(rulebook.rules))


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_size
