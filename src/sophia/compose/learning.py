"""What learning needs at start: eyes for requests, priors for models, and what was kept before."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import msgspec

from sophia.adapters.store.snapshots import SnapshotFolder
from sophia.config import ConfigError, Learning
from sophia.core.ports import Clock, Store
from sophia.jobs.keep import KeepLearned
from sophia.learning.live import Live
from sophia.learning.live import Settings as LiveSettings
from sophia.learning.priors import decode as read_priors
from sophia.learning.priors import prior
from sophia.learning.snapshots import BrokenSnapshot
from sophia.routing.embedding import read_embedding
from sophia.routing.nouns import Plan
from sophia.routing.policies.choose import Exploration
from sophia.routing.policies.hierarchical import Hierarchical, Shape
from sophia.routing.policies.policy import Prior
from sophia.routing.pool import Pool
from sophia.routing.tasks import read_tasks
from sophia.routing.taxonomy import Taxonomy, read_taxonomy
from sophia.serving.insight import Insight
from sophia.serving.sense import Senses
from sophia.serving.teach import Teacher, catch_up

FOLDER = "learned"
_FIRST = "priors alone"

read_plan = msgspec.json.Decoder(Plan).decode


@dataclass(frozen=True, slots=True)
class Learner:
    """The parts that learn: what looks at requests, what hears feedback, what keeps it all."""

    insight: Insight
    teacher: Teacher
    keeper: KeepLearned


async def learner_of(
    settings: Learning, data: Path, store: Store, clock: Clock, pool: Callable[[], Pool]
) -> Learner:
    """Return the learning parts, as far as they had come when they were last kept.

    Raises:
        ConfigError: what was kept cannot be read, and how to go back.
    """
    taxonomy = read_taxonomy(_text("taxonomy.yaml"))
    senses = Senses(
        read_embedding(_blob("embedding.npz")),
        read_tasks(_blob("tasks.npz")),
        {name: kind.type for name, kind in taxonomy.items()},
        shared=settings.share_keys,
    )
    live = Live(
        Hierarchical(Shape(len(senses.classes), 0, 0)),
        "",
        priors_over(taxonomy, senses.classes),
        live_settings(settings),
    )

    def arms() -> list[str]:
        return [seat.id for seat in pool().seats]

    keeper = KeepLearned(live, SnapshotFolder(data / FOLDER), clock, arms)
    try:
        resumed = keeper.resume()
    except (BrokenSnapshot, msgspec.DecodeError) as error:
        raise ConfigError(
            f"{data / FOLDER}: {error}. `sophia learn --rollback` goes back to an earlier one."
        ) from error
    await catch_up(live, store, read_plan)
    if live.know(arms()) or not resumed:
        keeper.keep(_FIRST if not resumed else "new models")
    return Learner(Insight(live, senses), Teacher(live, store, read_plan), keeper)


def live_settings(settings: Learning) -> LiveSettings:
    """Return how the learned policy behaves by these settings."""
    usual = LiveSettings()
    exploration = usual.exploration if settings.explore else Exploration("off", extra=0.0)
    return LiveSettings(after=settings.after, exploration=exploration)


def priors_over(taxonomy: Taxonomy, classes: tuple[str, ...]) -> Callable[[str], Prior]:
    """Return what tells the prior of any arm over `classes`."""
    book = read_priors(_blob("priors.json"))
    kinds = [taxonomy[name].kinds if name in taxonomy else () for name in classes]
    return lambda arm: prior(book, arm, kinds)


def _blob(name: str) -> bytes:
    return files("sophia.routing").joinpath("data", name).read_bytes()


def _text(name: str) -> str:
    return _blob(name).decode()
