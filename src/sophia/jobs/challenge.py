"""Challenge what was learned: fit a correction, look at what later decisions say, and rule."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Sequence
from typing import Literal, Protocol

from msgspec.structs import replace

from sophia.core.ids import made_ms
from sophia.core.ports import Clock, Store
from sophia.core.rows import Intent
from sophia.jobs.keep import Change
from sophia.learning.challenge import (
    Challenge,
    Judged,
    Pace,
    challenged,
    judged,
    lessons_until,
    look,
    rival_of,
    ruled,
)
from sophia.learning.correction import Miss, fit, miss_of
from sophia.learning.lessons import ReadPlan, taught_of
from sophia.learning.live import Live
from sophia.learning.logged import logged_of, words_of
from sophia.learning.promotion import Trial

MOST_TENANTS = 1000
"""How many may be challenged at the same time."""

MOST_DECISIONS = 25_000
"""The latest that a look takes, so that it fits in memory where few answers are scored."""

_PAGE = 200

Step = Literal["begin", "look"]


class Keep(Protocol):
    """Puts a changed challenge into service, in a snapshot of its own."""

    def __call__(self, tenant: str, change: Change, reason: str) -> Awaitable[None]: ...


class ChallengeLearned:
    """Takes the next step of every tenant's challenge for whom it is time.

    Nothing holds up who is being served: the ledger is read row by row, heavy arithmetic runs in a
    thread, and what comes out is put into service at one stroke.

    Args:
        live: is challenged.
        store: holds lessons and decisions.
        read: reads a plan.
        keep: puts a change into service.
        clock: dates the steps.
        pace: of the challenges.
    """

    def __init__(  # noqa: PLR0913 - each is one part of a challenge
        self,
        live: Live,
        store: Store,
        read: ReadPlan,
        keep: Keep,
        clock: Clock,
        pace: Pace | None = None,
    ) -> None:
        self._live = live
        self._store = store
        self._read = read
        self._keep = keep
        self._clock = clock
        self._pace = pace or Pace()
        self._in_vain: dict[str, int] = {}

    async def __call__(self) -> None:
        """Look once for whom it is time."""
        for tenant in self._live.tenants:
            if bool(tenant) == self._live.shared:
                # Whoever learned before keys learned together, or apart, gives no lessons now.
                continue
            step = self.due(tenant)
            if step == "begin":
                await self._begin(tenant)
            elif step == "look":
                await self._look(tenant)

    def due(self, tenant: str) -> Step | None:
        """Return the step that is due for a tenant, if one is."""
        live = self._live
        known = live.challengers.all
        if tenant not in known and len(known) >= MOST_TENANTS:
            return None
        challenge, heard = known.get(tenant), live.stand(tenant).lessons
        if heard < self._in_vain.get(tenant, 0):
            return None
        if lessons_until(challenge, heard, self._pace) > 0:
            return None
        return "look" if challenge is not None and challenge.open else "begin"

    async def _begin(self, tenant: str) -> None:
        seen = self._live.challengers.all.get(tenant)
        misses = await self._misses(tenant)
        at = self._now()
        fitted = await asyncio.to_thread(fit, misses)
        heard = self._live.stand(tenant).lessons

        if fitted is None:
            # Too few arms were tried to prefer one; it is not asked at every turn whether more are.
            self._in_vain[tenant] = heard + self._pace.look
            return

        def change(now: Challenge | None) -> Challenge | None:
            # Somebody else may have begun meanwhile, or gone back.
            return challenged(now, fitted, heard, at) if now == seen else None

        await self._keep(tenant, change, "a challenger looks on")

    async def _look(self, tenant: str) -> None:
        challenge = self._live.challengers.all[tenant]
        found = await self._decisions(tenant, challenge)
        until, heard = self._now(), self._live.stand(tenant).lessons
        trial: Trial | None = None
        if found:
            trial = await asyncio.to_thread(look, challenge, found, until)

        def change(now: Challenge | None) -> Challenge | None:
            # Live scores, or somebody who went back, may have ended it meanwhile.
            if now is None or now.contest.challenger != challenge.contest.challenger:
                return None
            if trial is None or not now.open:
                return replace(now, lessons=heard)
            return ruled(now, trial, heard, until, self._live.challengers.gate)

        await self._keep(tenant, change, "a challenger was looked at")

    async def _misses(self, tenant: str) -> list[Miss]:
        """Return the tenant's latest lessons, and what is expected of them by now."""
        live, misses = self._live, list[Miss]()
        known, after = frozenset(live.learner.arms), max(live.lessons - self._pace.most, 0)
        while rows := await self._store.lessons(after, _PAGE):
            after = rows[-1].number
            for row in rows:
                if row.arm not in known or not self._is_of(tenant, row.key_id):
                    continue
                decision = await self._store.decision(row.decision_id)
                taught = None
                if decision is not None:
                    taught = taught_of(row, decision, self._read, shared=self._live.shared)
                if taught is not None:
                    rated = live.learner.rate(taught.lesson.sight, [row.arm])
                    misses.append(miss_of(taught.lesson, float(rated.quality[0])))
        return misses

    async def _decisions(self, tenant: str, challenge: Challenge) -> Sequence[Judged]:
        """Return the incumbent's decisions that no look has seen, and what both would have done."""
        since, name = challenge.contest.seen_ms, challenge.rated_by
        words = await words_of(self._store, since)
        rival, found = rival_of(challenge), deque[Judged](maxlen=MOST_DECISIONS)
        async for decision in self._since(since):
            if decision.at_ms < since or not self._is_of(tenant, decision.key_id):
                continue
            one = logged_of(decision, self._read, words, shared=self._live.shared)
            # Who never explores tells nothing of what else might have been taken.
            explored = one is not None and one.exploration.mode != "off"
            if one is not None and explored and one.rated_by == name:
                found.append(judged(one, rival))
        return found

    async def _since(self, since_ms: int) -> AsyncIterator[Intent]:
        """Return the decisions since a moment, oldest first, a page at a time."""
        last, page = 0, _PAGE
        while True:
            rows = await self._store.decisions(since_ms, page)
            for row in rows:
                if row.attempt_id > last:
                    # Reading one takes a while, and somebody may be waiting to be served.
                    await asyncio.sleep(0)
                    yield row
            if len(rows) < page:
                return
            # A millisecond that has more decisions than a page would come again and again.
            page = page * 2 if rows[-1].attempt_id == last else _PAGE
            last = rows[-1].attempt_id
            since_ms = made_ms(last)

    def _is_of(self, tenant: str, key_id: str) -> bool:
        return self._live.shared or key_id == tenant

    def _now(self) -> int:
        return int(self._clock.wall() * 1000)
