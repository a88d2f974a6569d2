"""Policies by the names that people give them, as they would have decided a ledger's requests."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from sophia.adapters.store.report import bills
from sophia.adapters.store.sqlite import SqliteStore
from sophia.catalogue.catalogue import Catalogue
from sophia.compose.learning import (
    first_steps,
    history_of,
    read_plan,
    restored,
    task_classes,
)
from sophia.compose.priors import shelf_of
from sophia.config import Settings
from sophia.core.ids import first_id
from sophia.jobs.reload import pool_of
from sophia.learning.live import Live
from sophia.learning.logged import Logged, decisions_of
from sophia.learning.snapshots import Snapshot
from sophia.learning.targets import fixed, rechosen, tabled
from sophia.learning.what_if import WhatIf, Would, cross_fitted, what_if
from sophia.routing.arms import model_of
from sophia.routing.policies.choose import DIAL, price_of
from sophia.routing.policies.hierarchical import Hierarchical
from sophia.routing.policies.policy import Lesson, Ratings

HEURISTIC, HIERARCHICAL, LEARNED, FIXED = "heuristic", "hierarchical", "learned", "model:"
NAMES = (HEURISTIC, HIERARCHICAL, LEARNED, *DIAL, f"{FIXED}ID", "a snapshot's id")
"""What `sophia replay --policy` takes."""

_LEAST_ID = 4
Tell = Callable[[str, float], None]


class UnknownPolicy(ValueError):
    """No policy is called that, or it cannot be asked for like this."""


class Wish(Struct, frozen=True):
    """What to find out: policies by name, another dial, the only models, and since when.

    `dial` is a number from 0 to 10 or a word, as callers set it; an empty `models` means all.
    """

    policies: tuple[str, ...]
    since_ms: int
    dial: str | None = None
    models: frozenset[str] = frozenset()
    seed: int = 0


async def told(settings: Settings, catalogue: Catalogue, wish: Wish, tell: Tell) -> WhatIf:
    """Return what the requests since then would have cost and scored.

    Raises:
        UnknownPolicy: a policy or dial is none.
        NothingLogged: the ledger cannot tell.
        BrokenSnapshot: a snapshot cannot be read.
    """
    data = Path(settings.data_dir)
    stage = _Stage(settings, catalogue, wish, tell)
    for name in wish.policies:
        stage.check(name)
    store = SqliteStore(data / "sophia.db")
    try:
        shared = settings.learning.share_keys
        found = await decisions_of(store, read_plan, wish.since_ms, shared=shared)
    finally:
        await store.close()
    policies = [stage.would(name, found.decisions) for name in wish.policies]
    tell("judging", 1.0)
    paid = bills(data / "sophia.db", first_id(wish.since_ms))
    return what_if(found, policies, paid, task_classes(), wish.seed)


class _Stage:
    """Makes policies by name."""

    def __init__(self, settings: Settings, catalogue: Catalogue, wish: Wish, tell: Tell) -> None:
        self._settings = settings
        self._data = Path(settings.data_dir)
        self._wish = wish
        self._tell = tell
        self._pool = pool_of(catalogue, settings.routing.models)
        self._price = None if wish.dial is None else _price(wish.dial)

    def check(self, name: str) -> None:
        """Raise UnknownPolicy unless `name` is one that can be asked for."""
        if name == HEURISTIC or name.startswith(FIXED):
            if self._price is not None or self._wish.models:
                raise UnknownPolicy(f"{name} rates no models: it has no dial, and no choice.")
        elif name in DIAL and self._price is not None:
            raise UnknownPolicy(f"{name} is a dial itself; `learned` takes another.")
        elif name not in {HIERARCHICAL, LEARNED, *DIAL}:
            self._snapshot(name)

    def would(self, name: str, decisions: Sequence[Logged]) -> Would:
        """Return what the policy of that name would have done."""
        self._tell(name, 0.0)
        if name == HEURISTIC:
            return Would(name, [tabled(one, self._pool) for one in decisions])
        if name.startswith(FIXED):
            return _always(name, decisions)
        if name == LEARNED or name in DIAL:
            ratings = [one.options.ratings for one in decisions]
            price = price_of(DIAL[name]) if name in DIAL else self._price
            return self._rechosen(name, decisions, ratings, price)
        _check_seen(name, decisions)
        if name == HIERARCHICAL:
            return self._rechosen(name, decisions, self._anew(decisions))
        return self._by_snapshot(name, decisions)

    def _rechosen(
        self,
        name: str,
        decisions: Sequence[Logged],
        ratings: Sequence[Ratings | None],
        price: float | None = None,
    ) -> Would:
        price, models = self._price if price is None else price, self._wish.models
        chances = [
            rechosen(one, some, price, models)
            for one, some in zip(decisions, ratings, strict=True)
        ]
        without = sum(
            bool(models) and not any(model_of(arm) in models for arm in one.arms)
            for one in decisions
        )
        note = _left_as_done("none of these models", without, len(decisions))
        return Would(_called(name, self._wish), chances, note=note)

    def _anew(self, decisions: Sequence[Logged]) -> list[Ratings | None]:
        """Return ratings by what was known before these days, and all but a part of them."""
        start = self._before(decisions)

        def learn(lessons: Sequence[Lesson]) -> Hierarchical:
            learner = Hierarchical.restore(start)
            for lesson in lessons:
                learner.learn_one(lesson)
            return learner

        return cross_fitted(
            learn, decisions, self._wish.seed, tell=lambda share: self._tell(HIERARCHICAL, share)
        )

    def _before(self, decisions: Sequence[Logged]) -> bytes:
        """Return the learner of the snapshot that served when these days began, or priors alone."""
        before = [one for one in history_of(self._data) if one.at_ms <= self._wish.since_ms]
        learning = self._settings.learning
        if before and not before[-1].gone:
            live, _ = restored(learning, self._data, before[-1].id)
        else:
            live, _ = first_steps(learning, book=shelf_of(self._data))
        live.know(dict.fromkeys(model_of(arm) for one in decisions for arm in one.arms))
        return live.learner.snapshot()

    def _by_snapshot(self, name: str, decisions: Sequence[Logged]) -> Would:
        live, made = self._snapshot(name)
        judged = np.array([one.at_ms > made.created_ms for one in decisions], dtype=np.bool_)
        ratings: list[Ratings | None] = []
        for one in decisions:
            sight = replace(one.sight, tenant="" if live.shared else one.key_id)
            ratings.append(live.learner.rate(sight, one.arms))
        would = self._rechosen(name, decisions, ratings)
        before = len(judged) - int(judged.sum())
        note = f"{before:,} decisions from before {live.base[:16]} are left out: it may know them."
        return replace(would, judged=judged, note=note if before else would.note)

    def _snapshot(self, name: str) -> tuple[Live, Snapshot]:
        """Return the snapshot whose id begins with `name`, and what it knew."""
        steps = history_of(self._data)
        found = {step.id for step in steps if step.id.startswith(name) and not step.gone}
        if len(found) != 1 or len(name) < _LEAST_ID:
            raise UnknownPolicy(
                f"{name!r} is no policy, and begins {len(found)} snapshots; take one of: "
                f"{', '.join(NAMES)}."
            )
        return restored(self._settings.learning, self._data, found.pop())


def _check_seen(name: str, decisions: Sequence[Logged]) -> None:
    """Raise UnknownPolicy when a request was seen as numbers that today's learners do not read."""
    tasks = len(task_classes())
    other = sum(len(one.sight.tasks) != tasks for one in decisions)
    if other:
        raise UnknownPolicy(
            f"{other:,} requests of these days were seen by a release with other tasks, which "
            f"{name} cannot read: take fewer days (--days)."
        )


def _always(name: str, decisions: Sequence[Logged]) -> Would:
    model = name.removeprefix(FIXED)
    known = sorted({model_of(arm) for one in decisions for arm in one.arms})
    if decisions and model not in known:
        raise UnknownPolicy(
            f"No request of these days could have gone to {model!r}; they could to: "
            f"{', '.join(known)}."
        )
    without = sum(model not in map(model_of, one.arms) for one in decisions)
    note = _left_as_done(model, without, len(decisions))
    return Would(name, [fixed(one, model) for one in decisions], note=note)


def _left_as_done(who: str, count: int, of: int) -> str:
    if not count:
        return ""
    return f"{count:,} of {of:,} requests could go to {who}: there, what was done stands."


def _called(name: str, wish: Wish) -> str:
    parts = [name]
    if wish.dial is not None:
        parts.append(f"dial {wish.dial}")
    if wish.models:
        parts.append("of " + ", ".join(sorted(wish.models)))
    return ", ".join(parts)


def _price(dial: str) -> float:
    try:
        return price_of(DIAL[dial] if dial in DIAL else float(dial))
    except ValueError:
        known = ", ".join(DIAL)
        raise UnknownPolicy(f"--dial is a number from 0 to 10, or {known}; not {dial!r}.") from None
