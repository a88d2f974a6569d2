"""Who judges answers after they were given, from the settings."""

from collections.abc import Callable, Sequence

from sophia.config import ConfigError, Judging, Learning
from sophia.core.ids import JUDGING, MAX_ATTEMPTS
from sophia.core.money import nano_from_usd
from sophia.core.ports import Clock, Coordinator, Store
from sophia.core.rows import Outcome
from sophia.learning.live import Live
from sophia.serving.aftermath import Aftermath
from sophia.serving.checking import Verdicts
from sophia.serving.desk import Desk
from sophia.serving.judge import PURSE, Court, Judge
from sophia.serving.knowledge import Knowledge
from sophia.serving.signs import Signs
from sophia.tenants.budget import day_window


def court_of(settings: Judging, knowledge: Knowledge) -> Court | None:
    """Return who may judge; None when no answers are to be judged.

    Raises:
        ConfigError: answers are to be judged, but by nobody, or by a model that does not exist.
    """
    if not settings.share:
        return None
    if not settings.models:
        raise ConfigError("`learning.judge.models`: name the models that are to judge")
    models = []
    for name in settings.models:
        found = knowledge.find(name)
        if found is None:
            raise ConfigError(f"`learning.judge.models`: there is no model {name!r}")
        models.append(found.id)
    return Court(tuple(models), nano_from_usd(settings.daily_budget_usd), settings.rubric)


async def judge_of(
    court: Court | None,
    live: Live,
    desk: Desk,
    verdicts: Verdicts,
    tell: Callable[[str, Sequence[tuple[str, int]]], None],
) -> Judge | None:
    """Return what judges, with what was spent on it today; None without a court."""
    if court is None:
        return None
    books = desk.books
    await _remember(books.store, books.coordinator, day_window(books.clock.wall()))

    def told(became: str, outcomes: Sequence[Outcome]) -> None:
        tell(became, [(one.model, one.cost_nano) for one in outcomes])

    judge = Judge(desk, court, verdicts, told)
    judge.favours = lambda key_id: live.credence(key_id).favour()
    return judge


def aftermath_of(
    settings: Learning, judge: Judge | None, verdicts: Verdicts, clock: Clock
) -> Aftermath:
    """Return who sees to answers once they are given."""
    return Aftermath(judge, Signs(verdicts, clock) if settings.implicit else None)


async def _remember(store: Store, coordinator: Coordinator, window: str) -> None:
    """Put down what judging cost today and what of it is in doubt, so that a restart pays none."""
    coordinator.settle(PURSE, window, 0, await store.judging(window))
    for hold in await store.open_holds():
        if hold.attempt_id & MAX_ATTEMPTS == JUDGING:
            await coordinator.reserve(PURSE, hold.window, None, hold.held_nano)
