"""How well lengths and times of answers are foreseen, on recorded ones. `python -m bench.routing.answers --help`."""

import argparse
import json
import math
import random
import timeit
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow.parquet as pq
from rich.progress import track

from sophia.compose.learning import first_steps
from sophia.routing.features import extract
from sophia.routing.forecast import Answer, Asked
from sophia.routing.habits import Habits
from sophia.routing.nouns import Hints, Prompt
from sophia.routing.policies.policy import Vector
from sophia.routing.timing import STRANGER, Clock

LENGTHS = ("zeroeval", "bfcl", "mmlu_pro")
TIMES = "bfcl"
QUERIES, ANSWERS, EACH = 1500, 25_000, 1000
FEW, MANY = 20, 100
LIMITS_MS = (1000.0, 2000.0, 4000.0, 8000.0)
Z95 = 1.645
MEMORY = 0.05


class Row(NamedTuple):
    """A recorded answer: who gave it to which query, its tokens and its milliseconds, if known."""

    arm: str
    query: str
    tokens: int
    total_ms: float | None


def rows_of(folder: Path) -> list[Row]:
    """The recorded answers of a table that have tokens."""
    table = pq.read_table(folder / "outcomes.parquet").to_pydict()
    found = []
    for arm, query, tokens, seconds in zip(
        table["model"], table["query_id"], table["completion_tokens"], table["latency_s"], strict=True
    ):
        if tokens is not None and math.isfinite(tokens) and tokens > 0:
            timed = seconds is not None and math.isfinite(seconds) and seconds > 0
            found.append(Row(arm, query, int(tokens), seconds * 1000 if timed else None))
    return found


def seen_of(folder: Path, told: random.Random) -> dict[str, tuple[int, Vector]]:
    """Tokens expected of anybody and the task posterior of some queries."""
    _, look = first_steps()
    table = pq.read_table(folder / "queries.parquet").to_pydict()
    texts = list(zip(table["query_id"], table["query_text"], strict=True))
    found = {}
    for query, text in told.sample(texts, min(QUERIES, len(texts))):
        prompt = Prompt(text[:2000], chars=len(text), utf8_bytes=len(text.encode()))
        features = extract(prompt, Hints())
        found[query] = features.output_tokens, look(prompt, features, Hints(), "").tasks
    return found


def stage(count: int) -> str:
    """Which part of an arm's answers one is of."""
    return f"1-{FEW}" if count < FEW else f"{FEW + 1}-{MANY}" if count < MANY else f"{MANY + 1}-"


def foreseen(folder: Path, seed: int) -> dict[str, dict[str, float]]:
    """Errors of lengths and times by stage, each forecast made before its answer was learned."""
    told = random.Random(seed)
    seen = seen_of(folder, told)
    rows = [row for row in rows_of(folder) if row.query in seen]
    rows = told.sample(rows, min(ANSWERS, len(rows)))
    habits = Habits(len(next(iter(seen.values()))[1]))
    habits.know({row.arm: STRANGER for row in rows})
    errors: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    sums: dict[tuple[str, str], dict[str, float]] = defaultdict(lambda: defaultdict(float))
    count: dict[str, int] = defaultdict(int)
    ratio: dict[str, float] = defaultdict(lambda: 1.0)
    usual: dict[str, float] = {}
    for row in track(rows, folder.name):
        expected, tasks = seen[row.query]
        forecast = habits.forecast([row.arm], Asked(tasks, np.array([float(expected)])))
        part = stage(count[row.arm])
        count[row.arm] += 1
        found = errors[part]
        log_ratio, mean = math.log(row.tokens / expected), float(forecast.length[0])
        scatter = habits._lengths.scatters[habits._rows[row.arm]].variance  # noqa: SLF001
        found["length"].append((log_ratio - math.log(mean) + scatter / 2) ** 2)
        found["length, moving mean"].append((log_ratio - math.log(ratio[row.arm])) ** 2)
        total = sums[part, row.arm]
        total["true"] += row.tokens
        total["sum"] += mean * expected
        total["sum, moving mean"] += ratio[row.arm] * expected
        if row.total_ms is not None:
            took = math.log(row.total_ms)
            found["within p95"].append(took <= forecast.time[0] + Z95 * forecast.spread[0])
            for limit in LIMITS_MS:
                late = float(row.total_ms > limit)
                before = 1 / (1 + (limit / usual.get(row.arm, STRANGER.first_ms)) ** 3)
                found["late"].append((float(forecast.late(limit)[0]) - late) ** 2)
                found["late, moving mean"].append((before - late) ** 2)
            usual[row.arm] = row.total_ms if row.arm not in usual else usual[row.arm] + MEMORY * (row.total_ms - usual[row.arm])
        ratio[row.arm] += MEMORY * (row.tokens / expected - ratio[row.arm])
        took_ms = row.total_ms or STRANGER.first_ms + STRANGER.token_ms * row.tokens
        habits.answered(Answer(row.arm, tasks, expected, row.tokens, took_ms))
    return {part: dict(_means(found, [one for (of, _), one in sums.items() if of == part])) for part, found in errors.items()}


def _means(found: dict[str, list[float]], sums: list[dict[str, float]]) -> Iterator[tuple[str, float]]:
    for name, values in found.items():
        mean = float(np.mean(values))
        yield name, round(math.sqrt(mean) if name.startswith("length") else mean, 4)
    for name in ("sum", "sum, moving mean"):
        yield name, round(float(np.mean([abs(math.log(one[name] / one["true"])) for one in sums])), 4)


class Line:
    """log T on a design of the tokens by a Kalman filter, as the clock is learned; `base` is taken off first."""

    def __init__(self, design: Callable[[int], Vector], base: Callable[[int], float], start: Vector) -> None:
        self.design, self.base, self.mean = design, base, start
        self.cov, self.scatter, self.seen = np.eye(len(start)) * 0.5, 0.25, 0

    def expect(self, tokens: int) -> float:
        """The logarithm of the median time."""
        return self.base(tokens) + float(self.design(tokens) @ self.mean)

    def learn(self, took_ms: float, tokens: int) -> None:
        """Take in one time."""
        design = self.design(tokens)
        moved = self.cov @ design
        total = float(design @ moved) + self.scatter
        reach = 3 * math.sqrt(total)
        surprise = min(max(math.log(took_ms) - self.expect(tokens), -reach), reach)
        share = self.scatter / total
        self.mean = self.mean + moved * (surprise / total)
        self.cov = self.cov - np.outer(moved, moved) / total + np.eye(len(moved)) * 1e-4 * self.scatter
        self.seen += 1
        self.scatter += (surprise * surprise * share - self.scatter) / min(self.seen + 10, 200)


class Told:
    """The clock that Sophia keeps."""

    def __init__(self) -> None:
        self.clock = Clock.of(STRANGER)

    def expect(self, tokens: int) -> float:
        """The logarithm of the median time."""
        return math.log(math.exp(self.clock.first) + math.exp(self.clock.token) * tokens)

    def learn(self, took_ms: float, tokens: int) -> None:
        """Take in one time."""
        self.clock.ended(took_ms, tokens)


class Mean:
    """A moving mean of milliseconds, whatever the tokens."""

    def __init__(self) -> None:
        self.usual: float | None = None

    def expect(self, _: int) -> float:
        """Its logarithm."""
        return math.log(self.usual or 4000.0)

    def learn(self, took_ms: float, _: int) -> None:
        """Take in one time."""
        self.usual = took_ms if self.usual is None else self.usual + MEMORY * (took_ms - self.usual)


def one(_: int) -> Vector:
    """A design that ignores the tokens."""
    return np.ones(1)


MODELS: dict[str, Callable[[], Line | Told | Mean]] = {
    "moving mean of seconds": Mean,
    "log-normal, whatever the tokens": lambda: Line(one, lambda _: 0.0, np.array([8.3])),
    "a fixed line of tokens, scaled": lambda: Line(one, lambda n: math.log(1000 + 15 * n), np.zeros(1)),
    "line of logarithms": lambda: Line(
        lambda n: np.array([1.0, math.log(n / 100)]), lambda _: 0.0, np.array([8.0, 0.4])
    ),
    "F + g·n": Told,
}


def clocks(folder: Path, seed: int) -> dict[str, float]:
    """Pinball loss of the median log time from an arm's 101st answer on, tokens known."""
    told = random.Random(seed)
    by_arm: dict[str, list[Row]] = defaultdict(list)
    for row in rows_of(folder):
        if row.total_ms is not None:
            by_arm[row.arm].append(row)
    losses: dict[str, list[float]] = defaultdict(list)
    for rows in track([rows for rows in by_arm.values() if len(rows) > 3 * MANY], "clocks"):
        models = {name: make() for name, make in MODELS.items()}
        for number, row in enumerate(told.sample(rows, min(EACH, len(rows)))):
            for name, model in models.items():
                if number >= MANY:
                    losses[name].append(abs(math.log(row.total_ms or 1.0) - model.expect(row.tokens)) / 2)
                model.learn(row.total_ms or 1.0, row.tokens)
    return {name: round(float(np.mean(found)), 4) for name, found in losses.items()}


def speed() -> dict[str, float]:
    """Microseconds, the best of twenty runs: forecasts of 50 arms with P(late), and learning an answer."""
    habits, tasks = Habits(36), np.full(36, 1 / 36)
    calls = ("", "#tools", "#reasoning")
    habits.know({f"a/{number}{call}": STRANGER for call in calls for number in range(50)})
    arms, asked = [f"a/{number}" for number in range(50)], Asked(tasks, np.full(50, 300.0))
    answer = Answer("a/3", tasks, 300, 250, 4000.0, 600.0)
    steps = {
        "forecast of 50 arms": lambda: habits.forecast(arms, asked).late(2000.0),
        "learning an answer": lambda: habits.answered(answer),
    }
    return {name: round(min(timeit.repeat(step, number=500, repeat=20)) / 500 * 1e6, 1) for name, step in steps.items()}


def main() -> None:
    """Measure and print everything as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/routing"))
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    told = {name: foreseen(given.data / name, given.seed) for name in LENGTHS}
    result = {"foreseen": told, "clocks": clocks(given.data / TIMES, given.seed), "microseconds": speed()}
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
