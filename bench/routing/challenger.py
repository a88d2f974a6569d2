"""Does a challenger of the learned policy rise by itself, where there is something to gain or not?

    python -m bench.routing.challenger --data DIR [--source mix] [--requests 40000] [--seeds 3]
    python -m bench.routing.challenger --made-up nothing --seeds 100

Requests are drawn from a table of real outcomes, or from a made-up world; the live policy decides,
learns, and is challenged as it is in service. Since every arm's score is known, what serving the
challenger is really worth is known too: it is printed beside what the gate was told.
"""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from msgspec.structs import replace
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from bench.routing.sources import read_source
from sophia.compose.learning import first_steps
from sophia.learning.challenge import (
    Challenge,
    Pace,
    challenged,
    judged,
    lessons_until,
    look,
    rival_of,
    ruled,
)
from sophia.learning.correction import fit, miss_of
from sophia.learning.live import Live
from sophia.learning.logged import Logged, Word
from sophia.learning.promotion import Ruling
from sophia.learning.settings import Settings
from sophia.learning.table_sights import prompt_of
from sophia.learning.taught import Taught
from sophia.routing.evidence import rounded
from sophia.routing.features import extract
from sophia.routing.learned import probe, within_reach
from sophia.routing.nouns import Hints
from sophia.routing.policies.choose import Choice, Options, Taste, choose
from sophia.routing.policies.hierarchical import Hierarchical, Shape
from sophia.routing.policies.policy import Lesson, Policy, Prior, Sight
from sophia.routing.policies.residual import Rival

DATA = Path(__file__).parents[2].parent / "shared/data/routing"
PRICE = 0.1
PRIOR_NOISE, PRIOR_SD = 0.06, 0.1
KEY = "a key"
"""Whose requests they are: by default every key learns by itself."""
PROBES = 400
"""Requests by which it is told what a challenger is really worth."""

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class World:
    """Requests with the true score of every arm, (N, A), and what each arm is expected to cost."""

    name: str
    arms: tuple[str, ...]
    sights: Sequence[Sight]
    quality: Matrix
    cost: Matrix
    priors: dict[str, Prior]


@dataclass(frozen=True)
class Look:
    """One look: after how many requests, what the log told, and what is true."""

    requests: int
    stage: str
    ruling: Ruling
    true: float


@dataclass
class Run:
    """The live policy at work in a world; a lesson after each request."""

    world: World
    rng: np.random.Generator
    settings: Settings = field(default_factory=Settings)
    pace: Pace = field(default_factory=Pace)
    at_ms: int = 1_000_000
    taken: list[Logged] = field(default_factory=list)
    lessons: list[Lesson] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)
    tried: int = 0
    served: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        tasks = len(self.world.sights[0].tasks)
        learner = Hierarchical(Shape(tasks, 0, 0), None, self.world.priors)
        flat = Prior(np.full(tasks, 0.6), np.full(tasks, PRIOR_SD))
        self.live = Live(learner, "", lambda _: flat, self.settings)

    @property
    def challenge(self) -> Challenge | None:
        """The challenge as it stands."""
        return self.live.challengers.all.get(KEY)

    def ask(self, count: int, tick: Callable[[], object] = lambda: None) -> None:
        """Decide `count` requests, learn from each, and let the challenge go on."""
        for _ in range(count):
            self._one()
            self._step()
            tick()

    def gain(self) -> float:
        """Return the true gain of the challenger over the incumbent, in utility for a request."""
        challenge = self.challenge
        if challenge is None:
            return 0.0
        live, world = self.live, self.world
        sides = [
            live.challengers.policy(live.learner, KEY, name)
            for name in (challenge.contest.challenger, challenge.rated_by)
        ]
        total = 0.0
        for row in self.rng.integers(len(world.sights), size=PROBES).tolist():
            (ours, options, _own), (theirs, _, own) = (self._choose(row, one, 0.0) for one in sides)
            price = own.price / own.reference * options.cost
            total += float((ours.propensities - theirs.propensities) @ (world.quality[row] - price))
        return total / PROBES

    def _one(self) -> None:
        world, live = self.world, self.live
        self.at_ms += 1000
        row = int(self.rng.integers(len(world.sights)))
        name = live.challengers.drawn(KEY, float(self.rng.random()))
        policy = live.challengers.policy(live.learner, KEY, name)
        rival = live.challengers.rival(KEY, name)
        choice, options, taste = self._choose(row, policy, float(self.rng.random()), rival)
        score = float(world.quality[row, choice.arm])
        arm, sight = world.arms[choice.arm], world.sights[row]
        self.taken.append(
            Logged(
                self.at_ms,
                sight,
                world.arms,
                options,
                taste,
                self.settings.exploration,
                choice.propensities,
                choice.arm,
                Word(score, 1.0, arm),
                rated_by=name,
            )
        )
        self.lessons.append(Lesson(sight, arm, score))
        self.served[policy.name] = self.served.get(policy.name, 0) + 1
        live.learn(
            Taught(
                self.lessons[-1], policy.name, self.at_ms, decided_ms=self.at_ms, rated_by=name
            )
        )

    def _choose(
        self, row: int, policy: Policy, draw: float, rival: Rival | None = None
    ) -> tuple[Choice, Options, Taste]:
        world = self.world
        sight = world.sights[row]
        ratings = policy.rate(sight, world.arms)
        assert ratings is not None
        every = np.ones(len(world.arms), dtype=np.bool_)
        options, taste, best = within_reach(Options(ratings, world.cost[row], every), Taste(PRICE))
        if rival is not None:
            rivals = rival.correct(ratings, sight, world.arms)
            options = replace(options, trial=probe(options, taste, best, rivals))
        return choose(options, taste, self.settings.exploration, draw), options, taste

    def _step(self) -> None:
        heard, challenge = self.live.stand(KEY).lessons, self.challenge
        if lessons_until(challenge, heard, self.pace) > 0 or heard < self.tried:
            return
        self.at_ms += 1000
        if challenge is not None and challenge.open:
            since, name = challenge.contest.seen_ms, challenge.rated_by
            found = [one for one in self.taken if one.at_ms >= since and one.rated_by == name]
            rival = rival_of(challenge)
            judgements = [judged(one, rival) for one in found]
            trial = look(challenge, judgements, self.at_ms)
            after = ruled(challenge, trial, heard, self.at_ms, self.settings.challenge)
            assert after.last is not None
            self.looks.append(Look(heard, after.contest.stage, after.last, self.gain()))
        else:
            rate = self.live.learner.rate
            recent = self.lessons[-self.pace.most :]
            fitted = fit([miss_of(one, float(rate(one.sight, [one.arm]).quality[0])) for one in recent])
            if fitted is None:
                self.tried = heard + self.pace.look
                return
            after = challenged(challenge, fitted, heard, self.at_ms)
        self.live.challengers.all = {KEY: after}


def made_up(kind: str, rng: np.random.Generator) -> World:
    """Return a world of two near-equal arms and a weak one, by five tasks and `unknown`.

    Where something is `hidden`, the first arm shines on requests of one clear task and fails on
    those between two, and the second the other way round: a line in the posterior is blind to it.
    Where there is `nothing`, both are what a line can tell.
    """
    tasks, count = 6, 2000
    sights, quality = [], np.empty((count, 3))
    for row in range(count):
        one, other = rng.choice(tasks - 1, 2, replace=False)
        clear = rng.random() < 0.5
        posterior = np.full(tasks, 0.02)
        posterior[-1] = 0.02 if rng.random() < 0.8 else 0.3
        posterior[one] += 1.0 if clear else 0.5
        posterior[other] += 0.0 if clear else 0.5
        posterior /= posterior.sum()
        sights.append(Sight(posterior, np.zeros(0), np.zeros(0), float(posterior[-1]), KEY))
        level = 0.6 + 0.04 * (int(one) - 2)
        tilt = (0.15 if clear else -0.15) if kind == "hidden" else 0.0
        chance = np.array([level + tilt, level - tilt, 0.2])
        quality[row] = rng.random(3) < chance
    prior = Prior(np.full(tasks, 0.6), np.full(tasks, PRIOR_SD))
    arms = ("a/first", "b/second", "c/weak")
    cost = np.ones((count, 3))
    return World(kind, arms, sights, quality, cost, dict.fromkeys(arms, prior))


def world_of(data: Path, source: str, rng: np.random.Generator) -> World:
    """Return a table as a world: requests as a gateway sees them, arms known to ± 6 points."""
    table = read_source(data, source)
    _, senses = first_steps()
    hints, sights = Hints(), []
    for question in table.questions:
        prompt = prompt_of(question)
        sights.append(rounded(senses(prompt, extract(prompt, hints), hints, KEY)))
    tasks = len(sights[0].tasks)
    usual = np.clip(table.quality.mean(axis=0) + rng.normal(0.0, PRIOR_NOISE, len(table.arms)), 0, 1)
    cost = np.ones_like(table.quality) if table.cost is None else table.cost
    # What an answer costs is expected by the arm, as a price list tells it; 1e9 makes it nano-dollars.
    expected = np.tile(cost.mean(axis=0) * 1e9, (len(sights), 1))
    priors = {
        arm: Prior(np.full(tasks, mean), np.full(tasks, PRIOR_SD))
        for arm, mean in zip(table.arms, usual, strict=True)
    }
    return World(source, table.arms, sights, table.quality, expected, priors)


def told(run: Run) -> dict[str, object]:
    """Return what happened in a run, for programs."""
    challenge = run.challenge
    return {
        "world": run.world.name,
        "requests": len(run.taken),
        "served": run.served,
        "looks": [
            {
                "after_lessons": one.requests,
                "stage": one.stage,
                "true_gain": one.true,
                "gain": getattr(getattr(one.ruling.trial.gain, "difference", None), "value", None),
                "low": one.ruling.low if np.isfinite(one.ruling.low) else None,
                "ess": one.ruling.trial.gain.support.ess,
                "refused": getattr(one.ruling.trial.gain, "reason", None),
            }
            for one in run.looks
        ],
        "steps": [] if challenge is None else [
            *([one.challenger, one.stage, one.reason] for one in challenge.past),
            *([challenge.contest.challenger, one.after, one.reason] for one in challenge.contest.history),
        ],
    }


def show(found: dict[str, object], console: Console) -> None:
    """Print a run as a table."""
    out = Table("lessons", "gain by the log", "its lower bound", "worth", "true gain", "stage after")
    for one in found["looks"]:
        seen = one["refused"] or f"{one['gain']:+.4f}"
        low = "-" if one["low"] is None else f"{one['low']:+.4f}"
        ess, true = f"{one['ess']:.0f}", f"{one['true_gain']:+.4f}"
        out.add_row(str(one["after_lessons"]), seen, low, ess, true, one["stage"])
    console.print(out)
    for who, stage, reason in found["steps"]:
        console.print(f"{who}: {stage}, {reason}")
    console.print(found["served"])


def main() -> None:
    """Run, print, and write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--source", default="mix")
    parser.add_argument("--made-up", choices=["hidden", "nothing"])
    parser.add_argument("--requests", type=int, default=40_000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    console, found = Console(width=120), []
    with Progress(console=console) as progress:
        bar = progress.add_task("asking", total=asked.seeds * asked.requests)
        for seed in range(asked.seeds):
            rng = np.random.default_rng([seed, 11])
            kind = asked.made_up
            world = made_up(kind, rng) if kind else world_of(asked.data, asked.source, rng)
            run = Run(world, rng)
            for _ in range(asked.requests // 100):
                run.ask(100)
                progress.advance(bar, 100)
            found.append(told(run))
    for one in found:
        show(one, console)
    rose = sum(any(step[1] != "retired" for step in one["steps"]) for one in found)
    console.print(f"{rose} of {len(found)} runs had a challenger that rose beyond the shadow")
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
