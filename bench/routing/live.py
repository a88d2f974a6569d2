"""A live run: simulated users ask a running Sophia, and score answers by a real table of outcomes.

    python -m bench.routing.live --data DIR [--source zeroeval] [--requests 1800] [--json FILE]
        [--figure FILE.svg]

Sophia runs as users run it, `sophia serve` with the sandbox behind it, and knows nothing of the
table: each of its models stands for one arm of it, whose recorded score is the user's feedback.
After a third a better model joins, after two thirds the most used one loses 40 % of its quality.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from threading import local

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from bench.routing.sources import read_source
from sophia.catalogue.snapshot import bundled
from sophia.learning.tables import OutcomeTable

DATA = Path(__file__).parents[2].parent / "shared/data/routing"
NEWCOMER = "openai/gpt-4.1-mini"
BROKEN_SHARE = 0.4
BUDGET_USD = 3.0
AT_ONCE = 4
WAIT_SECONDS = 30.0
WINDOW = 60


@dataclass(frozen=True)
class Asked:
    """One request of the run: who answered, by which policy, how well, for how much."""

    model: str
    policy: str
    score: float
    cost_usd: float


@dataclass
class World:
    """What the users know: which arm of the table each model stands for, and who is broken."""

    table: OutcomeTable
    arms: dict[str, int]
    generator: np.random.Generator
    broken: str | None = None
    lock: list[int] = field(default_factory=list)

    def score(self, row: int, model: str) -> float:
        """Return the user's score of what `model` answered to question `row`."""
        quality = float(self.table.quality[row, self.arms[model]])
        if model == self.broken and self.generator.random() < BROKEN_SHARE:
            return 0.0
        return quality


class Client:
    """Talks to a running Sophia; a connection per thread."""

    def __init__(self, port: int, key: str) -> None:
        self._port = port
        self._headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        self._own = local()

    def post(self, path: str, body: dict[str, object]) -> tuple[int, dict[str, object]]:
        """Return the status and the JSON of the answer."""
        connection = getattr(self._own, "connection", None)
        if connection is None:
            connection = self._own.connection = HTTPConnection("127.0.0.1", self._port, timeout=60)
        connection.request("POST", path, json.dumps(body), self._headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


@contextmanager
def serving(folder: Path, models: Sequence[str]) -> Iterator[Client]:
    """Run Sophia on `folder` with `models` besides its own, and stop it as one stops a service."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "rules.yaml").write_text("rules: []\n")
    (folder / "sophia.yaml").write_text(
        f"server: {{port: {port}}}\ndata_dir: {folder / 'data'}\nsandbox: {{speed: 0}}\n"
        f"routing: {{rules: {folder / 'rules.yaml'}, models: {json.dumps(list(models))}}}\n"
    )
    environ = {name: value for name, value in os.environ.items() if "OPENROUTER" not in name}
    sophia = [sys.executable, "-m", "sophia.cli.main"]
    config = ["--config", str(folder / "sophia.yaml")]
    made = subprocess.run(
        [*sophia, "keys", "create", "--name", "users", "--json", *config, "--daily-budget-usd", str(BUDGET_USD)],
        check=True, capture_output=True, env=environ,
    )
    key = json.loads(made.stdout)["key"] if not (folder / "key").exists() else ""
    if key:
        (folder / "key").write_text(key)
    with (folder / "log").open("ab") as log:
        server = subprocess.Popen([*sophia, "serve", *config], stdout=log, stderr=log, env=environ)
        try:
            _wait(port)
            yield Client(port, (folder / "key").read_text())
        finally:
            server.terminate()
            server.wait(30)


def run(data: Path, source: str, requests: int, seed: int, console: Console) -> dict[str, object]:
    """Return what happened, stage by stage, and whether the ledger replays."""
    generator = np.random.default_rng(seed)
    table = read_source(data, source)
    world = World(table, {}, generator)
    rows = generator.permutation(len(table.questions))[:requests]
    world.arms = _arms(table)
    third = len(rows) // 3
    stages: list[list[Asked]] = []
    with tempfile.TemporaryDirectory() as made, Progress(console=console) as progress:
        folder = Path(made)
        bar = progress.add_task("asking", total=len(rows))
        for number, models in enumerate(((), (NEWCOMER,), (NEWCOMER,))):
            part = rows[number * third : (number + 1) * third]
            if number == 2:
                world.broken = _favourite(stages[-1][-third // 2 :])
            with serving(folder, models) as client:
                stages.append(_ask(client, world, part, lambda: progress.advance(bar)))
        replayed = _replay(folder)
        spent = sum(one.cost_usd for stage in stages for one in stage)
    return {
        "source": source,
        "requests": len(rows),
        "seed": seed,
        "first_learned": _first_learned(stages),
        "stages": [_summary(stage) for stage in stages],
        "newcomer": {"model": NEWCOMER, "share_of_last_150": _share(stages[1][-150:], NEWCOMER)},
        "broken": {
            "model": world.broken,
            "share_before": _share(stages[1][-150:], world.broken or ""),
            "share_of_last_150": _share(stages[2][-150:], world.broken or ""),
        },
        "spent_usd": spent,
        "budget_usd": BUDGET_USD,
        "replay": replayed,
        "trace": [[one.model, one.policy, one.score] for stage in stages for one in stage],
    }


def draw(told: dict, target: Path) -> None:
    """Draw who answered and how well, request by request, as means over the latest ones."""
    from matplotlib.figure import Figure

    models = [one[0] for one in told["trace"]]
    scores = np.array([one[2] for one in told["trace"]])
    window = np.ones(WINDOW) / WINDOW
    figure = Figure(figsize=(8.5, 5.2), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    place = np.arange(WINDOW, len(scores) + 1)
    above.plot(place, np.convolve(scores, window, "valid"), color="black")
    above.set_ylabel(f"score, mean of {WINDOW}")
    for model, _ in Counter(models).most_common(6):
        share = np.convolve([name == model for name in models], window, "valid")
        below.plot(place, share, label=model)
    below.set_ylabel(f"share of {WINDOW}")
    below.set_xlabel("request")
    below.legend(fontsize="x-small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    third = len(scores) // 3
    marks = ((told["first_learned"] or 0, "the learned policy begins"),
             (third, f"{told['newcomer']['model']} joins"), (2 * third, f"{told['broken']['model']} breaks"))
    for axis in (above, below):
        axis.grid(visible=True, alpha=0.3)
        for at, _ in marks:
            axis.axvline(at, color="grey", linestyle=":")
    for at, name in marks:
        above.text(at + 4, above.get_ylim()[0], name, fontsize="x-small", rotation=90, va="bottom")
    figure.savefig(target)


def _arms(table: OutcomeTable) -> dict[str, int]:
    """Return an arm of the table for each model, better ones for dearer ones, the best for the newcomer."""
    order = np.argsort(table.quality.mean(axis=0))
    pool = sorted(bundled().profiles, key=lambda model: model.prices.tier(0).completion)
    spread = order[np.linspace(0, len(order) - 4, len(pool)).astype(int)].tolist()
    return {**dict(zip([model.id for model in pool], spread, strict=True)), NEWCOMER: int(order[-1])}


def _ask(client: Client, world: World, rows: np.ndarray, tick: object) -> list[Asked]:
    def one(row: int) -> Asked | None:
        text = world.table.questions[row].text[:4000]
        status, answer = client.post(
            "/v1/chat/completions",
            {"model": "sophia/auto", "max_tokens": 64,
             "messages": [{"role": "user", "content": text}]},
        )
        if status != 200:
            raise RuntimeError(f"HTTP {status}: {answer}")
        told = answer["sophia"]
        score = world.score(row, told["model"])
        verdict = {"decision_id": told["decision_id"], "score": score}
        client.post("/v1/feedback", verdict)
        tick()
        return Asked(told["model"], told["policy"], score, told["cost_usd"])

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(one, rows.tolist()))


def _favourite(asked: Sequence[Asked]) -> str:
    return Counter(one.model for one in asked).most_common(1)[0][0]


def _share(asked: Sequence[Asked], model: str) -> float:
    return sum(one.model == model for one in asked) / max(len(asked), 1)


def _first_learned(stages: Sequence[Sequence[Asked]]) -> int | None:
    policies = [one.policy for stage in stages for one in stage]
    return policies.index("hierarchical") if "hierarchical" in policies else None


def _summary(asked: Sequence[Asked]) -> dict[str, object]:
    by_policy: dict[str, list[float]] = {}
    for one in asked:
        by_policy.setdefault(one.policy, []).append(one.score)
    return {
        "requests": len(asked),
        "score": float(np.mean([one.score for one in asked])),
        "by_policy": {
            name: {"requests": len(scores), "score": float(np.mean(scores))}
            for name, scores in by_policy.items()
        },
        "shares": dict(Counter(one.model for one in asked).most_common()),
        "cost_usd": sum(one.cost_usd for one in asked),
    }


def _replay(folder: Path) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-m", "sophia.cli.main", "replay", "--json", "--config", str(folder / "sophia.yaml")],
        check=False, capture_output=True, text=True,
    )
    return json.loads(done.stdout) if done.stdout else {"error": done.stderr[-2000:]}


def _wait(port: int) -> None:
    end = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < end:
        try:
            connection = HTTPConnection("127.0.0.1", port, timeout=1)
            connection.request("GET", "/health/ready")
            if connection.getresponse().status == 200:
                return
        except OSError:
            time.sleep(0.05)
    raise TimeoutError("Sophia did not become ready")


def _print(console: Console, told: dict) -> None:
    out = Table("stage", "requests", "score", "policies", "models")
    names = ("as it starts", f"{NEWCOMER} joins", f"{told['broken']['model']} breaks")
    for name, stage in zip(names, told["stages"], strict=True):
        policies = ", ".join(
            f"{policy} {facts['requests']} ({facts['score']:.2f})"
            for policy, facts in stage["by_policy"].items()
        )
        models = ", ".join(f"{model} {count}" for model, count in list(stage["shares"].items())[:4])
        out.add_row(name, str(stage["requests"]), f"{stage['score']:.3f}", policies, models)
    console.print(out)
    console.print({key: told[key] for key in ("first_learned", "newcomer", "broken", "spent_usd", "replay")})


def main() -> None:
    """Run, print, and write JSON if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--source", default="zeroeval")
    parser.add_argument("--requests", type=int, default=1800)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--figure", type=Path)
    chosen = parser.parse_args()
    console = Console()
    told = run(chosen.data, chosen.source, chosen.requests, chosen.seed, console)
    _print(console, told)
    if chosen.json:
        chosen.json.write_text(json.dumps(told) + "\n")
    if chosen.figure:
        draw(told, chosen.figure)


if __name__ == "__main__":
    main()
