"""Accuracy of forecast answer lengths and times. `python -m bench.routing.answers --help`."""

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

from sophia.learning.online.packaged import load_classifier
from sophia.routing.bandit.performance.forecast import AnswerMeasurement
from sophia.routing.bandit.performance.latency import DEFAULT_SPEED, LatencyModel
from sophia.routing.bandit.performance.model import PerformanceModel
from sophia.routing.bandit.policy import Vector
from sophia.routing.types import Hints, Prompt

LENGTH_SOURCES = ("zeroeval", "bfcl", "mmlu_pro")
TIMED_SOURCE = "bfcl"
QUERIES, ANSWERS, EACH = 1500, 25_000, 1000
FEW, MANY = 20, 100
LIMITS_MS = (1000.0, 2000.0, 4000.0, 8000.0)
Z95 = 1.645
DECAY = 0.05


class RecordedAnswer(NamedTuple):
    """A recorded answer: arm, query, tokens and, if known, milliseconds."""

    arm: str
    query: str
    tokens: int
    total_ms: float | None


def read_answers(folder: Path) -> list[RecordedAnswer]:
    """Return a table's recorded answers with token counts."""
    table = pq.read_table(folder / "outcomes.parquet").to_pydict()
    found = []
    for arm, query, tokens, seconds in zip(
        table["model"],
        table["query_id"],
        table["completion_tokens"],
        table["latency_s"],
        strict=True,
    ):
        if tokens is not None and math.isfinite(tokens) and tokens > 0:
            timed = seconds is not None and math.isfinite(seconds) and seconds > 0
            found.append(RecordedAnswer(arm, query, int(tokens), seconds * 1000 if timed else None))
    return found


def read_contexts(folder: Path, rng: random.Random) -> dict[str, tuple[int, Vector]]:
    """Return the arm-independent expected tokens and task posteriors of sampled queries."""
    classifier = load_classifier()
    table = pq.read_table(folder / "queries.parquet").to_pydict()
    texts = list(zip(table["query_id"], table["query_text"], strict=True))
    found = {}
    for query, text in rng.sample(texts, min(QUERIES, len(texts))):
        prompt = Prompt(text=text[:2000], chars=len(text), utf8_bytes=len(text.encode()))
        encoded = classifier.encode(prompt, Hints())
        found[query] = (encoded.features.output_tokens, encoded.posterior)
    return found


def get_stage(count: int) -> str:
    """Return the range of answer numbers of an arm that the answer after `count` is in."""
    return f"1-{FEW}" if count < FEW else f"{FEW + 1}-{MANY}" if count < MANY else f"{MANY + 1}-"


def evaluate_forecasts(folder: Path, seed: int) -> dict[str, dict[str, float]]:
    """Return errors of lengths and times by stage; each forecast precedes its update."""
    random_source = random.Random(seed)
    seen = read_contexts(folder, random_source)
    rows = [row for row in read_answers(folder) if row.query in seen]
    rows = random_source.sample(rows, min(ANSWERS, len(rows)))
    performance = PerformanceModel(len(next(iter(seen.values()))[1]))
    performance.set_speed_priors({row.arm: DEFAULT_SPEED for row in rows})
    errors: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    sums: dict[tuple[str, str], dict[str, float]] = defaultdict(lambda: defaultdict(float))
    count: dict[str, int] = defaultdict(int)
    ratio: dict[str, float] = defaultdict(lambda: 1.0)
    mean_ms: dict[str, float] = {}
    for row in track(rows, folder.name):
        expected, tasks = seen[row.query]
        forecast = performance.forecast([row.arm], tasks, np.array([float(expected)]))
        part = get_stage(count[row.arm])
        count[row.arm] += 1
        found = errors[part]
        log_ratio, mean = math.log(row.tokens / expected), float(forecast.length_ratio[0])
        scatter = performance._lengths.residuals[performance._rows[row.arm]].variance  # noqa: SLF001
        found["length"].append((log_ratio - math.log(mean) + scatter / 2) ** 2)
        found["length, moving mean"].append((log_ratio - math.log(ratio[row.arm])) ** 2)
        total = sums[part, row.arm]
        total["true"] += row.tokens
        total["sum"] += mean * expected
        total["sum, moving mean"] += ratio[row.arm] * expected
        if row.total_ms is not None:
            took = math.log(row.total_ms)
            found["within p95"].append(took <= forecast.log_time[0] + Z95 * forecast.log_time_sd[0])
            for limit in LIMITS_MS:
                late = float(row.total_ms > limit)
                before = 1 / (
                    1 + (limit / mean_ms.get(row.arm, DEFAULT_SPEED.first_content_ms)) ** 3
                )
                found["late"].append((float(forecast.late_probability(limit)[0]) - late) ** 2)
                found["late, moving mean"].append((before - late) ** 2)
            mean_ms[row.arm] = (
                row.total_ms
                if row.arm not in mean_ms
                else mean_ms[row.arm] + DECAY * (row.total_ms - mean_ms[row.arm])
            )
        ratio[row.arm] += DECAY * (row.tokens / expected - ratio[row.arm])
        took_ms = (
            row.total_ms or DEFAULT_SPEED.first_content_ms + DEFAULT_SPEED.token_ms * row.tokens
        )
        performance.update_answer(
            AnswerMeasurement(
                arm=row.arm,
                task_probabilities=tasks,
                expected_tokens=expected,
                completion_tokens=row.tokens,
                total_ms=took_ms,
            )
        )
    return {
        part: dict(_means(found, [one for (of, _), one in sums.items() if of == part]))
        for part, found in errors.items()
    }


def _means(
    found: dict[str, list[float]], sums: list[dict[str, float]]
) -> Iterator[tuple[str, float]]:
    for name, values in found.items():
        mean = float(np.mean(values))
        yield name, round(math.sqrt(mean) if name.startswith("length") else mean, 4)
    for name in ("sum", "sum, moving mean"):
        yield (
            name,
            round(float(np.mean([abs(math.log(one[name] / one["true"])) for one in sums])), 4),
        )


class KalmanLatency:
    """Kalman filter for log T on a design of the tokens; `base` is subtracted first."""

    def __init__(
        self, design: Callable[[int], Vector], base: Callable[[int], float], start: Vector
    ) -> None:
        self.design, self.base, self.mean = design, base, start
        self.cov, self.scatter, self.seen = np.eye(len(start)) * 0.5, 0.25, 0

    def predict(self, tokens: int) -> float:
        """Return the logarithm of the median time."""
        return self.base(tokens) + float(self.design(tokens) @ self.mean)

    def update(self, took_ms: float, tokens: int) -> None:
        """Update by one time."""
        design = self.design(tokens)
        moved = self.cov @ design
        total = float(design @ moved) + self.scatter
        reach = 3 * math.sqrt(total)
        surprise = min(max(math.log(took_ms) - self.predict(tokens), -reach), reach)
        share = self.scatter / total
        self.mean = self.mean + moved * (surprise / total)
        self.cov = (
            self.cov - np.outer(moved, moved) / total + np.eye(len(moved)) * 1e-4 * self.scatter
        )
        self.seen += 1
        self.scatter += (surprise * surprise * share - self.scatter) / min(self.seen + 10, 200)


class ProductLatency:
    """The product's latency model."""

    def __init__(self) -> None:
        self.latency_model = LatencyModel.from_prior(DEFAULT_SPEED)

    def predict(self, tokens: int) -> float:
        """Return the logarithm of the median time."""
        return math.log(
            math.exp(self.latency_model.log_first_ms)
            + math.exp(self.latency_model.log_token_ms) * tokens
        )

    def update(self, took_ms: float, tokens: int) -> None:
        """Update by one time."""
        self.latency_model.update_total(took_ms, tokens)


class MovingAverageLatency:
    """A moving mean of milliseconds that ignores the tokens."""

    def __init__(self) -> None:
        self.mean_ms: float | None = None

    def predict(self, _: int) -> float:
        """Return the logarithm of the mean."""
        return math.log(self.mean_ms or 4000.0)

    def update(self, took_ms: float, _: int) -> None:
        """Update by one time."""
        self.mean_ms = (
            took_ms if self.mean_ms is None else self.mean_ms + DECAY * (took_ms - self.mean_ms)
        )


def constant_design(_: int) -> Vector:
    """Return a design that ignores the tokens."""
    return np.ones(1)


LATENCY_MODELS: dict[str, Callable[[], KalmanLatency | ProductLatency | MovingAverageLatency]] = {
    "moving mean of seconds": MovingAverageLatency,
    "log-normal, whatever the tokens": lambda: KalmanLatency(
        constant_design, lambda _: 0.0, np.array([8.3])
    ),
    "a fixed line of tokens, scaled": lambda: KalmanLatency(
        constant_design, lambda n: math.log(1000 + 15 * n), np.zeros(1)
    ),
    "line of logarithms": lambda: KalmanLatency(
        lambda n: np.array([1.0, math.log(n / 100)]), lambda _: 0.0, np.array([8.0, 0.4])
    ),
    "F + g·n": ProductLatency,
}


def evaluate_latency_models(folder: Path, seed: int) -> dict[str, float]:
    """Return the pinball loss of the median log time from an arm's 101st answer on, given tokens."""
    random_source = random.Random(seed)
    by_arm: dict[str, list[RecordedAnswer]] = defaultdict(list)
    for row in read_answers(folder):
        if row.total_ms is not None:
            by_arm[row.arm].append(row)
    losses: dict[str, list[float]] = defaultdict(list)
    for rows in track([rows for rows in by_arm.values() if len(rows) > 3 * MANY], "latency models"):
        models = {name: make() for name, make in LATENCY_MODELS.items()}
        for number, row in enumerate(random_source.sample(rows, min(EACH, len(rows)))):
            for name, model in models.items():
                if number >= MANY:
                    losses[name].append(
                        abs(math.log(row.total_ms or 1.0) - model.predict(row.tokens)) / 2
                    )
                model.update(row.total_ms or 1.0, row.tokens)
    return {name: round(float(np.mean(found)), 4) for name, found in losses.items()}


def time_operations() -> dict[str, float]:
    """Return microseconds, the best of twenty runs, of a forecast for 50 arms and of an update."""
    performance, tasks = PerformanceModel(36), np.full(36, 1 / 36)
    calls = ("", "#tools", "#reasoning")
    performance.set_speed_priors(
        {f"a/{number}{call}": DEFAULT_SPEED for call in calls for number in range(50)}
    )
    arms, expected = [f"a/{number}" for number in range(50)], np.full(50, 300.0)
    answer = AnswerMeasurement(
        arm="a/3",
        task_probabilities=tasks,
        expected_tokens=300,
        completion_tokens=250,
        total_ms=4000.0,
        first_content_ms=600.0,
    )
    steps = {
        "forecast of 50 arms": lambda: performance.forecast(arms, tasks, expected).late_probability(
            2000.0
        ),
        "learning an answer": lambda: performance.update_answer(answer),
    }
    return {
        name: round(min(timeit.repeat(step, number=500, repeat=20)) / 500 * 1e6, 1)
        for name, step in steps.items()
    }


def main() -> None:
    """Measure everything and print it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/routing"))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    forecasts = {
        name: evaluate_forecasts(options.data / name, options.seed) for name in LENGTH_SOURCES
    }
    result = {
        "foreseen": forecasts,
        "clocks": evaluate_latency_models(options.data / TIMED_SOURCE, options.seed),
        "microseconds": time_operations(),
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
