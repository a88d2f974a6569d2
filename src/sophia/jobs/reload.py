"""Reload of the catalogue from its upstream and of the rules from their file."""

import logging
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from sophia.catalogue.profiles import CatalogueError
from sophia.catalogue.refresh import diff_catalogues, refresh_catalogue, save_listing
from sophia.core.failures import UpstreamFailure
from sophia.routing.pool import build_pool
from sophia.routing.rules.parse import RuleBookError, read_rules
from sophia.serving.runtime import Runtime

log = logging.getLogger("sophia.reload")


async def reload_catalogue(runtime: Runtime, data: Path) -> None:
    """Fetch the catalogue, put it in force and keep it in `data`; a failure changes nothing."""
    current = runtime.knowledge
    try:
        body = await runtime.upstreams.default.get("/models")
        today = datetime.fromtimestamp(runtime.ledger.clock.wall(), UTC).date()
        own = filter(None, map(current.catalogue.get, runtime.upstreams.by_model))
        catalogue = refresh_catalogue(current.catalogue, body, today.isoformat(), own)
    except (UpstreamFailure, CatalogueError) as error:
        log.warning("the catalogue of %s stays in force: %s", current.catalogue.date, error)
        return
    runtime.knowledge = replace(
        current,
        catalogue=catalogue,
        pool=build_pool(catalogue, current.extra_models, current.quality_prior),
        resolved={},
        pool_models={},
    )
    save_listing(data, body)
    log.info(
        "catalogue refreshed: %d models, %d added, %d removed, %d repriced",
        len(catalogue.models),
        *map(len, diff_catalogues(current.catalogue, catalogue)),
    )
    for warning in catalogue.warnings:
        log.warning("catalogue: %s", warning)


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
