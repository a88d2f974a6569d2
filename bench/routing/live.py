"""Live run: simulated users query a running Sophia and score answers by an outcome table.

    python -m bench.routing.live --data DIR [--source zeroeval] [--requests 1800] [--json FILE]
        [--figure FILE.svg]

Sophia runs as `sophia serve` with the sandbox as upstream and has no access to the table. Each of
its models maps to one arm of the table, whose recorded score is the user's feedback. After a third
of the requests a better model is added; after two thirds the most used one loses 40 % of its
quality.
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
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from threading import local

import numpy as np
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from bench.routing.sources import read_source
from lab.evaluation.tables import OutcomeTable
from sophia.catalogue.snapshot import load_bundled_catalogue

DATA = Path(__file__).parents[2].parent / "shared/data/routing"
NEW_MODEL = "openai/gpt-4.1-mini"
FAULT_SHARE = 0.4
BUDGET_USD = 3.0
CONCURRENCY = 4
WAIT_SECONDS = 30.0
WINDOW = 60


@dataclass(frozen=True)
class AnsweredRequest:
    """One answered request: model, policy, score and cost."""

    model: str
    policy: str
    score: float
    cost_usd: float


@dataclass
class SimulatedUsers:
    """Simulated users: the arm of each model, and the model that fails."""

    table: OutcomeTable
    arms: dict[str, int]
    generator: np.random.Generator
    faulty_model: str | None = None

    def score(self, row: int, model: str) -> float:
        """Return the user's score of the answer of `model` to question `row`."""
        quality = float(self.table.quality[row, self.arms[model]])
        if model == self.faulty_model and self.generator.random() < FAULT_SHARE:
            return 0.0
        return quality


class Client:
    """Client of a running Sophia, with a connection per thread."""

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
def run_server(folder: Path, models: Sequence[str]) -> Iterator[Client]:
    """Run Sophia on `folder` with the additional `models`, and terminate it on exit."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "rules.yaml").write_text("rules: []\n")
    (folder / "sophia.yaml").write_text(
        f"server: {{port: {port}}}\ndata_dir: {folder / 'data'}\nsandbox: {{speed: 0}}\n"
        f"routing: {{rules: {folder / 'rules.yaml'}, models: {json.dumps(list(models))}}}\n"
    )
    environ = {name: value for name, value in os.environ.items() if "OPENROUTER" not in name}
    sophia = [sys.executable, "-m", "sophia"]
    config = ["--config", str(folder / "sophia.yaml")]
    created = subprocess.run(
        [
            *sophia,
            "keys",
            "create",
            "--name",
            "users",
            "--json",
            *config,
            "--daily-budget-usd",
            str(BUDGET_USD),
        ],
        check=True,
        capture_output=True,
        env=environ,
    )
    key = json.loads(created.stdout)["key"] if not (folder / "key").exists() else ""
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
    """Return the results by stage, and the result of replaying the ledger."""
    generator = np.random.default_rng(seed)
    table = read_source(data, source)
    users = SimulatedUsers(table, {}, generator)
    rows = generator.permutation(len(table.questions))[:requests]
    users.arms = _map_models_to_arms(table)
    third = len(rows) // 3
    stages: list[list[AnsweredRequest]] = []
    with tempfile.TemporaryDirectory() as temporary, Progress(console=console) as progress:
        folder = Path(temporary)
        bar = progress.add_task("requests", total=len(rows))
        for number, models in enumerate(((), (NEW_MODEL,), (NEW_MODEL,))):
            part = rows[number * third : (number + 1) * third]
            if number == 2:
                users.faulty_model = _most_used_model(stages[-1][-third // 2 :])
            with run_server(folder, models) as client:
                stages.append(_send_requests(client, users, part, lambda: progress.advance(bar)))
        replayed = _replay(folder)
        spent = sum(one.cost_usd for stage in stages for one in stage)
    return {
        "source": source,
        "requests": len(rows),
        "seed": seed,
        "first_learned": _first_learned(stages),
        "stages": [_summary(stage) for stage in stages],
        "newcomer": {"model": NEW_MODEL, "share_of_last_150": _share(stages[1][-150:], NEW_MODEL)},
        "broken": {
            "model": users.faulty_model,
            "share_before": _share(stages[1][-150:], users.faulty_model or ""),
            "share_of_last_150": _share(stages[2][-150:], users.faulty_model or ""),
        },
        "spent_usd": spent,
        "budget_usd": BUDGET_USD,
        "replay": replayed,
        "trace": [[one.model, one.policy, one.score] for stage in stages for one in stage],
    }


def write_figure(results: dict, target: Path) -> None:
    """Plot moving means of the score and of each model's share of requests."""
    from matplotlib.figure import Figure

    models = [one[0] for one in results["trace"]]
    scores = np.array([one[2] for one in results["trace"]])
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
    marks = (
        (results["first_learned"] or 0, "the learned policy begins"),
        (third, f"{results['newcomer']['model']} joins"),
        (2 * third, f"{results['broken']['model']} breaks"),
    )
    for axis in (above, below):
        axis.grid(visible=True, alpha=0.3)
        for at, _ in marks:
            axis.axvline(at, color="grey", linestyle=":")
    for at, name in marks:
        above.text(at + 4, above.get_ylim()[0], name, fontsize="x-small", rotation=90, va="bottom")
    figure.savefig(target)


def _map_models_to_arms(table: OutcomeTable) -> dict[str, int]:
    """Map models to arms, better ones to more expensive ones, and the best to the new model."""
    order = np.argsort(table.quality.mean(axis=0))
    pool = sorted(
        load_bundled_catalogue().profiled_models,
        key=lambda model: model.prices.tier_for(0).completion,
    )
    spread = order[np.linspace(0, len(order) - 4, len(pool)).astype(int)].tolist()
    return {
        **dict(zip([model.id for model in pool], spread, strict=True)),
        NEW_MODEL: int(order[-1]),
    }


def _send_requests(
    client: Client, users: SimulatedUsers, rows: np.ndarray, on_answer: Callable[[], None]
) -> list[AnsweredRequest]:
    def one(row: int) -> AnsweredRequest | None:
        text = users.table.questions[row].text[:4000]
        status, answer = client.post(
            "/v1/chat/completions",
            {
                "model": "sophia/auto",
                "max_tokens": 64,
                "messages": [{"role": "user", "content": text}],
            },
        )
        if status != 200:
            raise RuntimeError(f"HTTP {status}: {answer}")
        metadata = answer["sophia"]
        score = users.score(row, metadata["model"])
        feedback = {"decision_id": metadata["decision_id"], "score": score}
        client.post("/v1/feedback", feedback)
        on_answer()
        return AnsweredRequest(metadata["model"], metadata["policy"], score, metadata["cost_usd"])

    with ThreadPoolExecutor(CONCURRENCY) as pool:
        return list(pool.map(one, rows.tolist()))


def _most_used_model(answered: Sequence[AnsweredRequest]) -> str:
    return Counter(one.model for one in answered).most_common(1)[0][0]


def _share(answered: Sequence[AnsweredRequest], model: str) -> float:
    return sum(one.model == model for one in answered) / max(len(answered), 1)


def _first_learned(stages: Sequence[Sequence[AnsweredRequest]]) -> int | None:
    policies = [one.policy for stage in stages for one in stage]
    return policies.index("hierarchical") if "hierarchical" in policies else None


def _summary(answered: Sequence[AnsweredRequest]) -> dict[str, object]:
    by_policy: dict[str, list[float]] = {}
    for one in answered:
        by_policy.setdefault(one.policy, []).append(one.score)
    return {
        "requests": len(answered),
        "score": float(np.mean([one.score for one in answered])),
        "by_policy": {
            name: {"requests": len(scores), "score": float(np.mean(scores))}
            for name, scores in by_policy.items()
        },
        "shares": dict(Counter(one.model for one in answered).most_common()),
        "cost_usd": sum(one.cost_usd for one in answered),
    }


def _replay(folder: Path) -> dict[str, object]:
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "sophia",
            "replay",
            "--json",
            "--config",
            str(folder / "sophia.yaml"),
        ],
        check=False,
        capture_output=True,
        text=True,
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


def _print(console: Console, results: dict) -> None:
    out = Table("stage", "requests", "score", "policies", "models")
    names = ("as it starts", f"{NEW_MODEL} joins", f"{results['broken']['model']} breaks")
    for name, stage in zip(names, results["stages"], strict=True):
        policies = ", ".join(
            f"{policy} {facts['requests']} ({facts['score']:.2f})"
            for policy, facts in stage["by_policy"].items()
        )
        models = ", ".join(f"{model} {count}" for model, count in list(stage["shares"].items())[:4])
        out.add_row(name, str(stage["requests"]), f"{stage['score']:.3f}", policies, models)
    console.print(out)
    console.print(
        {
            key: results[key]
            for key in ("first_learned", "newcomer", "broken", "spent_usd", "replay")
        }
    )


def main() -> None:
    """Run, print, and write the JSON and the figure if requested."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--source", default="zeroeval")
    parser.add_argument("--requests", type=int, default=1800)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--figure", type=Path)
    options = parser.parse_args()
    console = Console()
    results = run(options.data, options.source, options.requests, options.seed, console)
    _print(console, results)
    if options.json:
        options.json.write_text(json.dumps(results) + "\n")
    if options.figure:
        write_figure(results, options.figure)


if __name__ == "__main__":
    main()
