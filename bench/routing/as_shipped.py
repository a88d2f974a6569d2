"""The router as it ships, on tables and models that it has never seen.

Priors are fitted again without the source that is judged and, in turn, without each of its models;
requests are seen by the shipped task model. Three situations:

    first day    no outcome yet: share of the way from a random model to the single model of the
                 best value, which is known in hindsight only
    cold online  outcomes of the chosen models only, from the first request on: share of the way
                 from random to a router that knows the mean outcome of every model by task
    served       all models' outcomes on the other folds: the gap of `bench.routing`

Utility is the score less 0.1 times the cost over the best model's mean cost. Expected costs are the
models' mean costs: prices are listed, and lengths are learned within a few answers.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from bench.routing.online_stream import FOLDS, PRICE, expect_by_task
from bench.routing.sources import MIX, MIX_PARTS, list_sources, read_source
from lab.evaluation.measures import EvaluationBaseline, measure_policy
from lab.evaluation.tables import InvalidTable, Matrix, OutcomeTable
from lab.priors.benchmarks import DATA, BenchmarkMatrix, BenchmarkNames, decode_matrix, load_names
from lab.priors.fit import fit_priors
from lab.priors.ratings import Ratings, read_ratings
from lab.training.table_contexts import compute_task_means, encode_questions
from lab.training.task_training import predict_posteriors
from sophia.learning.online.build import build_policy
from sophia.learning.online.policy import OnlineSettings
from sophia.learning.priors.book import PriorBook
from sophia.learning.priors.names import NameIndex
from sophia.routing.bandit.choose import ArmChoice, ChoiceSet, choose_arm, expect_best_cost
from sophia.routing.bandit.context.task_model import load_task_model
from sophia.routing.bandit.policy import Lesson, PolicyContext
from sophia.routing.bandit.quality.hierarchical import HierarchicalPolicy
from sophia.routing.types import UtilityWeights

COST_STRENGTH = 10.0
LEFT_OUT_QUESTIONS = 300
"""About the number of questions that each left-out model is judged on."""
_MODE = re.compile(r"-FC(-\w+)?$")


@dataclass(frozen=True)
class Judged:
    """A table with its requests as the shipped task model sees them.

    `informed` is the choice of a router that knows the outcomes of all arms on the other folds.
    """

    table: OutcomeTable
    contexts: tuple[PolicyContext, ...]
    posterior: Matrix
    cost: Matrix
    utility: Matrix
    informed: NDArray[np.intp]

    @property
    def expected_cost(self) -> NDArray[np.float64]:
        """The mean cost of each arm, (A,)."""
        return np.asarray(self.cost.mean(axis=0))


@dataclass(frozen=True)
class FirstDay:
    """Shares of the way from random to the best-value single model, and choices by model.

    `same_shares` is for the same shares of models, drawn at random.
    """

    share: float
    same_shares: float
    rank_correlation: float
    chosen: dict[str, float]


@dataclass(frozen=True)
class SourceResult:
    """All results of one source."""

    source: str
    questions: int
    arms: int
    known_arms: int
    best_value: str
    first_day: FirstDay
    left_out_mean: float
    left_out_least: float
    online: float
    online_seeds: list[float]
    gap: float | None


class AsShipped:
    """What was fitted, so that parts of it can be left out."""

    def __init__(self) -> None:
        self._ratings: Ratings = read_ratings()
        self._cells: BenchmarkMatrix = decode_matrix((DATA / "benchmarks.json").read_bytes())
        self._names: BenchmarkNames = load_names()

    def fit(self, source: str, left_out: str | None = None) -> PriorBook:
        """Return the priors without a source and, if given, without an arm of it."""
        sources = MIX_PARTS if source == MIX else (source,)
        ratings, cells = self._ratings, self._cells.without(sources)
        if left_out is not None:
            name = self.resolve(left_out)
            rated = ratings.build_finder(self._names.rated_as).find(name)
            ratings = ratings.without({rated} if rated else ())
            measured = NameIndex(cells.arms).find(name)
            cells = cells.without(arms={name, measured} - {None})
        return PriorBook(fit_priors(ratings, cells, self._names))

    def resolve(self, arm: str) -> str:
        """Return the current name of a table's arm, without its call mode."""
        name = _MODE.sub("", arm)
        return self._names.aliases.get(name, name)

    def build_learner(self, arms: Sequence[str], book: PriorBook) -> HierarchicalPolicy:
        """Return the policy at its start, with priors of the arms by position."""
        policy = build_policy(get_priors=lambda: book)
        names = [self.resolve(arm) for arm in arms]
        policy.add_models(dict.fromkeys(names))
        learner = HierarchicalPolicy(policy.learner.task_count)
        for arm, name in zip(arms, names, strict=True):
            learner.add_arm(arm, policy.prior(name))
        return learner


def judge(table: OutcomeTable) -> Judged:
    """Return a table with the contexts of its questions."""
    blob = files("sophia.routing").joinpath("data/tasks.npz").read_bytes()
    model = load_task_model(blob)
    posterior = predict_posteriors(model, encode_questions(table.questions))
    cost = np.ones_like(table.quality) if table.cost is None else table.cost
    reference = float(cost[:, int(table.quality.mean(axis=0).argmax())].mean())
    utility = table.quality - PRICE * cost / reference
    folds = table.assign_folds(FOLDS)
    return Judged(
        table,
        tuple(PolicyContext(row, float(row[-1])) for row in posterior),
        posterior,
        cost,
        utility,
        expect_by_task(utility, posterior, folds).argmax(axis=1),
    )


def measure_first_day(judged: Judged, learner: HierarchicalPolicy, step: int = 1) -> FirstDay:
    """Return the results of choices without any outcome, exploration included.

    Of the questions every `step`-th is used.
    """
    arms, utility = judged.table.arms, judged.utility[::step]
    shares, gained, expected = np.zeros(len(arms)), 0.0, np.zeros(len(arms))
    for row, context in enumerate(judged.contexts[::step]):
        expected += learner.rate(context, arms).quality / len(utility)
        propensities = _choose(judged, learner, context, 0.0).propensities
        shares += propensities / len(utility)
        gained += float(propensities @ utility[row]) / len(utility)
    means = utility.mean(axis=0)
    low, high = float(means.mean()), float(means.max())
    ranks = [np.argsort(np.argsort(one)) for one in (expected, judged.table.quality.mean(axis=0))]
    most = np.argsort(-shares)[:4]
    return FirstDay(
        (gained - low) / (high - low),
        (float(shares @ means) - low) / (high - low),
        float(np.corrcoef(*ranks)[0, 1]),
        {arms[arm]: round(float(shares[arm]), 3) for arm in most if shares[arm] >= 0.01},
    )


def run_online(judged: Judged, learner: HierarchicalPolicy, seed: int) -> float:
    """Return the headroom of learning from the outcomes of chosen models alone."""
    rng = np.random.default_rng([seed, 7])
    order = rng.permutation(len(judged.contexts))
    gained = 0.0
    for number, row in enumerate(order):
        context = judged.contexts[row]
        arm = _choose(judged, learner, context, float(rng.random()), number).arm
        gained += float(judged.utility[row, arm])
        score = float(judged.table.quality[row, arm])
        learner.learn_one(Lesson(context, judged.table.arms[arm], score))
    rows = np.arange(len(order))
    random = float(judged.utility.mean())
    informed = float(judged.utility[rows, judged.informed].mean())
    return (gained / len(order) - random) / (informed - random)


def measure_served(judged: Judged) -> float | None:
    """Return the gap of the policy that learned all outcomes of the other folds."""
    table = judged.table
    if table.cost is None:
        return None
    folds = table.assign_folds(FOLDS)
    quality, cost = np.empty_like(table.quality), np.empty_like(table.quality)
    for fold in range(FOLDS):
        there = folds != fold
        learner = HierarchicalPolicy(judged.posterior.shape[1])
        learner.fit(
            [
                Lesson(judged.contexts[row], arm, score)
                for row in np.flatnonzero(there)
                for arm, score in zip(table.arms, table.quality[row].tolist(), strict=True)
            ]
        )
        held = np.flatnonzero(~there)
        quality[held] = [learner.rate(judged.contexts[row], table.arms).quality for row in held]
        means = compute_task_means(judged.posterior[there], table.cost[there], COST_STRENGTH)
        cost[held] = judged.posterior[held] @ means
    baseline = EvaluationBaseline.prepare(table.quality, table.cost, folds, 0)
    return measure_policy(baseline, quality, cost).held_out["gap"].value


def _choose(
    judged: Judged,
    learner: HierarchicalPolicy,
    context: PolicyContext,
    uniform: float,
    lessons: int = 0,
) -> ArmChoice:
    ratings = learner.rate(context, judged.table.arms)
    cost, zeros = judged.expected_cost * 1e9, np.zeros(len(judged.table.arms))
    options = ChoiceSet(
        ratings=ratings,
        cost=cost,
        explorable=np.ones(len(cost), dtype=np.bool_),
        late_probability=zeros,
        failure_probability=zeros,
    )
    weights = UtilityWeights(PRICE, expect_best_cost(ratings, cost))
    return choose_arm(options, weights, OnlineSettings().exploration_after(lessons), uniform)


def run_source(
    shipped: AsShipped, table: OutcomeTable, seeds: int, progress: Progress
) -> SourceResult:
    """Return all results of one table."""
    bar = progress.add_task(table.name, total=len(table.arms) + seeds + 3)
    judged = judge(table)
    progress.advance(bar)
    book = shipped.fit(table.name)
    known = sum(book.find(shipped.resolve(arm)) is not None for arm in table.arms)
    first = measure_first_day(judged, shipped.build_learner(table.arms, book))
    progress.advance(bar)
    left_out = []
    for arm in table.arms:
        learner = shipped.build_learner(table.arms, shipped.fit(table.name, arm))
        step = max(1, len(table.questions) // LEFT_OUT_QUESTIONS)
        left_out.append(measure_first_day(judged, learner, step).share)
        progress.advance(bar)
    online = []
    for seed in range(seeds):
        online.append(run_online(judged, shipped.build_learner(table.arms, book), seed))
        progress.advance(bar)
    gap = measure_served(judged)
    progress.remove_task(bar)
    return SourceResult(
        table.name,
        len(table.questions),
        len(table.arms),
        known,
        table.arms[int(judged.utility.mean(axis=0).argmax())],
        first,
        float(np.mean(left_out)),
        float(np.min(left_out)),
        float(np.mean(online)),
        online,
        gap,
    )


def run(data: Path, names: Sequence[str], seeds: int, console: Console) -> list[SourceResult]:
    """Print and return the results of the sources below `data`."""
    shipped, results = AsShipped(), []
    with Progress(console=console) as progress:
        for name in names or list_sources(data):
            try:
                table = read_source(data, name)
            except InvalidTable as error:
                console.print(f"[yellow]skipped[/] {error}")
                continue
            results.append(run_source(shipped, table, seeds, progress))
    console.print(build_table(results))
    return results


def build_table(results: Sequence[SourceResult]) -> Table:
    """Return the results as a terminal table, with means."""
    table = Table(title="As shipped, on sources left out of every fit")
    for title in ("source", "questions", "models", "with prior", "first day", "same shares"):
        table.add_column(title, justify="left" if title == "source" else "right")
    for title in ("model left out", "least", "online", "gap", "chosen first"):
        table.add_column(title, justify="left" if title == "chosen first" else "right")
    for one in results:
        table.add_row(
            one.source,
            f"{one.questions:,}",
            str(one.arms),
            str(one.known_arms),
            f"{one.first_day.share:.3f}",
            f"{one.first_day.same_shares:.3f}",
            f"{one.left_out_mean:.3f}",
            f"{one.left_out_least:.3f}",
            f"{one.online:.3f}",
            "–" if one.gap is None else f"{one.gap:.3f}",
            ", ".join(
                f"{arm} {share:.0%}" for arm, share in list(one.first_day.chosen.items())[:2]
            ),
        )
    if results:
        gaps = [one.gap for one in results if one.gap is not None]
        table.add_section()
        table.add_row(
            "mean",
            "",
            "",
            "",
            *(
                f"{np.mean(values):.3f}"
                for values in (
                    [one.first_day.share for one in results],
                    [one.first_day.same_shares for one in results],
                    [one.left_out_mean for one in results],
                    [one.left_out_least for one in results],
                    [one.online for one in results],
                    gaps or [float("nan")],
                )
            ),
            "",
        )
    return table


def write(path: Path, results: Sequence[SourceResult]) -> None:
    """Write the results as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {"sources": {one.source: asdict(one) for one in results}}
    path.write_text(json.dumps(content, indent=1) + "\n")
