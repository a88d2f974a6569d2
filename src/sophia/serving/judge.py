"""Some answers, drawn by lot, are judged by a model of another family once they were given.

Nobody waits for it: a judgement that cannot be paid, or comes when too many are waiting, is left
out. Prompts and answers live in memory until they are judged, and nowhere else.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence

from msgspec import Struct
from msgspec.structs import replace

from sophia.core.errors import BudgetExceeded, SophiaError
from sophia.core.ids import JUDGING, encode
from sophia.core.rows import OWN, Feedback, Outcome
from sophia.learning.channels import JUDGE
from sophia.learning.credence import Favours
from sophia.learning.judging import choose_judge, corrected
from sophia.routing.request import Limits
from sophia.serving import exhibit, rubric
from sophia.serving.answer import Record
from sophia.serving.checking import Verdicts
from sophia.serving.checks import choices
from sophia.serving.decide import Decision
from sophia.serving.desk import Desk
from sophia.serving.insight import lot_of
from sophia.serving.request import Request
from sophia.serving.tab import Payer
from sophia.tenants.budget import Account

log = logging.getLogger("sophia.serving")

PURSE = "sophia:judge"
"""The account of all judging; its name is no key's."""
WAITING = 64
AT_ONCE = 2
SECONDS = 60.0
SHARE_OF_REST = 10
"""A judgement holds at most one part in so many of what its key may still spend today."""
LEAST_KNOWN = 0.4
"""How strong a relative's judgement must be, 0.5 at the most, before it is worth its money."""
_WHICH = 6
"""The number of the lot that says which judge is asked."""

Tell = Callable[[str, Sequence[Outcome]], None]
"""Hears what became of a case, in a word, and what it cost."""


class Court(Struct, frozen=True):
    """Who may judge (ids of models), for how many nano-dollars a day, and by which rubric."""

    models: tuple[str, ...]
    daily_nano: int
    rubric: str | None = None


class Case(Struct, frozen=True):
    """An answer that is to be judged: to which request, whose money, and by which model."""

    request: Request
    decision: Decision
    payer: Payer
    model: str
    chunks: Sequence[bytes]


class Judge:
    """Judges answers in the background, a few at once.

    `favours` returns what was measured of judges' favour for their relatives on a key's answers.
    """

    def __init__(self, desk: Desk, court: Court, verdicts: Verdicts, tell: Tell) -> None:
        self.favours: Callable[[str], Favours] = lambda key_id: {}
        self._desk = desk
        self._court = court
        self._verdicts = verdicts
        self._tell = tell
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False

    def take(self, case: Case) -> None:
        """Judge an answer as soon as there is time, or leave it when too many wait."""
        if self._closing or len(self._tasks) >= WAITING:
            self._tell("dropped", ())
            return
        task = asyncio.get_running_loop().create_task(self._run(case))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self, patience: float = 2.0) -> None:
        """Take nothing more on, and end within `patience` seconds; what was asked is settled."""
        self._closing = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=patience)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, case: Case) -> None:
        async with self._turns:
            if self._closing:
                self._tell("dropped", ())
                return
            try:
                await self._judge(case)
            except Exception:
                # The border of a judgement: whatever is wrong with one, the next is judged.
                log.exception("a judgement failed")
                self._tell("failed", ())

    async def _judge(self, case: Case) -> None:
        judge = self._choose(case)
        said = choices(case.chunks)
        if judge is None or not said:
            self._tell("no_judge" if judge is None else "empty", ())
            return
        now = self._desk.books.clock.monotonic()
        # The answer took its own time; the judge has a clock of its own.
        request = replace(case.request, arrived=now, deadline=SECONDS)
        record = Record(self._desk, request, case.decision)
        model = record.knowledge.find(judge)
        if model is None:
            self._tell("no_judge", ())
            return
        shown = exhibit.messages(request.fields, said[0], self._court.rubric)
        sheet = rubric.Sheet(model, shown, exhibit.TOKENS)
        try:
            reply = await self._ask(record, case.payer, sheet)
        except SophiaError as error:
            self._tell("unpaid" if isinstance(error, BudgetExceeded) else "failed", ())
            return
        score = None if reply is None else exhibit.read(reply)
        if score is None:
            self._tell("failed" if reply is None else "unread", record.outcomes)
            return
        self._pass(case, judge, score)
        self._tell("judged", record.outcomes)

    async def _ask(self, record: Record, payer: Payer, sheet: rubric.Sheet) -> str | None:
        """Return the reply, paid by the key and within what all judging may cost today.

        What stays in doubt stays held in both accounts. Raises SophiaError when it is not paid.
        """
        books, court = self._desk.books, self._court
        coordinator, window = books.coordinator, payer.window
        errand = rubric.errand_of(record, payer, sheet, self._limits(payer))
        if errand.plan.attempts[0].max_tokens is not None:
            raise BudgetExceeded("what is left pays only for half a judgement")
        await coordinator.reserve(PURSE, window, court.daily_nano, errand.held_nano)
        reply = await rubric.run(self._desk, record, payer, errand, JUDGING)
        if all(one.state != "unknown" for one in record.outcomes):
            coordinator.settle(PURSE, window, errand.held_nano, record.cost_nano)
        if not record.outcomes:
            raise BudgetExceeded("the key's budget does not pay for a judgement")
        return reply

    def _limits(self, payer: Payer) -> Limits:
        coordinator = self._desk.books.coordinator
        rest = Account(*coordinator.standing(payer.key_id, payer.window)).left(payer.limit)
        purse = Account(*coordinator.standing(PURSE, payer.window)).left(self._court.daily_nano)
        bounds = [payer.per_request, purse, None if rest is None else rest // SHARE_OF_REST]
        each = min(one for one in bounds if one is not None)
        return Limits(each, rest, 1, self._desk.limits.price_headroom)

    def _choose(self, case: Case) -> str | None:
        """Return a stranger by lot, or a relative whose favour is known well; None without any."""
        judges = self._court.models
        stranger = choose_judge(case.model, judges, lot_of(case.request.id, _WHICH))
        if stranger is not None:
            return stranger
        favours = self.favours(case.payer.key_id)
        weighed = [(corrected(0.5, one, case.model, favours), one) for one in judges]
        known = [(found.strength, one) for found, one in weighed if found is not None]
        strength, relative = max(known, default=(0.0, ""))
        return relative if strength >= LEAST_KNOWN else None

    def _pass(self, case: Case, judge: str, score: float) -> None:
        """Keep what the judge said; whom it favours is taken off where it is learned from."""
        decision, now = encode("dec", case.request.id), self._desk.books.clock.wall()
        row = Feedback(
            f"{OWN}{decision}:{JUDGE}",
            case.request.id,
            case.payer.key_id,
            score,
            judge,
            0,
            None,
            JUDGE,
            int(now * 1000),
        )
        self._verdicts.add(row, case.model)
