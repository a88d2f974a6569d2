"""The pool's roles at their present models, and the model that costs are compared with."""

import logging
from collections.abc import Callable

from sophia.catalogue.catalogue import Catalogue
from sophia.catalogue.model import Model
from sophia.catalogue.snapshot import load_bundled_profiles
from sophia.config import RoutingSettings
from sophia.learning.priors.book import PriorBook
from sophia.learning.priors.task_quality import build_skill_rating
from sophia.routing.pool import build_pool
from sophia.routing.roles import RoleChange, follow_successors

log = logging.getLogger("sophia")


class RoleFollower:
    """Gives each role its present model; `changes` are those of the last catalogue."""

    def __init__(self, settings: RoutingSettings, read_priors: Callable[[], PriorBook]) -> None:
        self._settings = settings
        self._rate = build_skill_rating(read_priors)
        self._logged: set[RoleChange] = set()
        self._has_followed = False
        self.changes: tuple[RoleChange, ...] = ()

    def follow(self, catalogue: Catalogue) -> Catalogue:
        """Return the catalogue with each role at its present model."""
        if self._settings.pool.follow_successors and catalogue.profiled_models:
            profiles = load_bundled_profiles()
            catalogue, self.changes = follow_successors(catalogue, profiles, self._rate)
        return catalogue

    def follow_and_log(self, catalogue: Catalogue) -> Catalogue:
        """Follow the roles, and log each change once; those at the start only for debugging.

        `sophia models list` shows them at any time.
        """
        level = logging.INFO if self._has_followed else logging.DEBUG
        self._has_followed = True
        catalogue = self.follow(catalogue)
        for change in self.changes:
            if change not in self._logged:
                parts = change.role, change.before, change.after, change.reason
                log.log(level, "%s: %s -> %s: %s", *parts)
        self._logged.update(self.changes)
        if catalogue.doubtful_prices:
            log.log(level, "prices that look wrong: %s", ", ".join(catalogue.doubtful_prices))
        return catalogue

    def find_compared_model(self, catalogue: Catalogue) -> Model | None:
        """Return the model that costs are compared with: the configured, or the best-rated one."""
        catalogue = self.follow(catalogue)
        name = self._settings.compare_with
        if name is not None:
            found = catalogue.resolve(name)
            return None if found is None else found.model
        pool = build_pool(catalogue, self._settings.pool, lambda _: {})
        rated = [(self._rate(entry.id, ("knowledge",)) or 0.0, entry) for entry in pool.models]
        return max(rated, key=lambda pair: pair[0])[1].model if rated else None
