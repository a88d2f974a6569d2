"""What checking answers needs: when it is done, what a good answer is worth, and whom to ask."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from sophia.core.errors import BadRequest, SophiaError
from sophia.core.ports import Store
from sophia.core.rows import Feedback, Intent
from sophia.routing.nouns import Plan
from sophia.serving.request import Request

log = logging.getLogger("sophia.serving")


Examiner = Callable[[bytes], Awaitable[float | None]]
"""Judges an answer, sent as JSON: returns a score from 0 to 1, None when it has none."""

Hearer = Callable[[Intent, Feedback, str], Awaitable[object]]
"""Hears of a verdict on a decision, and which model it is about."""


class Verdicts:
    """Writes down what checks found, in the background: no answer waits for it.

    Args:
        store: keeps the verdicts, beside those of people.
        hear: learns from them, if anybody does.
    """

    def __init__(self, store: Store, hear: Hearer | None = None) -> None:
        self._store = store
        self._hear = hear
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, verdict: Feedback, model: str) -> None:
        """Keep a verdict on what `model` answered."""
        task = asyncio.get_running_loop().create_task(self._keep(verdict, model))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _keep(self, verdict: Feedback, model: str) -> None:
        try:
            fresh = await self._store.add_feedback(verdict)
            decision = await self._store.decision(verdict.decision_id)
            if fresh and self._hear is not None and decision is not None:
                await self._hear(decision, verdict, model)
        except SophiaError as error:
            log.warning("a verdict of the %s was lost: %s", verdict.channel, error.message)

    async def close(self) -> None:
        """Wait until everything is written."""
        await asyncio.gather(*self._tasks, return_exceptions=True)


@dataclass(frozen=True, slots=True)
class Checking:
    """How answers are checked.

    `auto`: whole answers of models that Sophia chose are checked unless the caller says otherwise.
    `value_nano` is what a good answer is worth in place of a bad one; None: ten times what the best
    candidate costs. `rubric` names the small model that may be asked for a mark, `webhooks` holds
    by URL the examiners that callers may name.
    """

    auto: bool = False
    value_nano: int | None = None
    rubric: str | None = None
    webhooks: Mapping[str, Examiner] = field(default_factory=dict)
    verdicts: Verdicts | None = None

    def wanted(self, request: Request, plan: Plan) -> bool:
        """Say whether the answer is to be checked before the caller gets any of it."""
        hints = request.hints
        wish = hints.cascade or ("check" if hints.webhook else None)
        if wish is None:
            return self.auto and not request.stream and plan.policy != "named"
        if request.endpoint == "embeddings" or wish == "off":
            return False
        return wish == "strict" or not request.stream

    def webhook(self, url: str | None) -> Examiner | None:
        """Return the examiner that a caller names. Raises BadRequest for any other URL."""
        if url is None:
            return None
        if url not in self.webhooks:
            raise BadRequest(
                "`sophia.webhook`: this URL is not among the ones that `cascade.webhooks` allows.",
                param="sophia.webhook",
            )
        return self.webhooks[url]


NOT_CHECKING = Checking()
