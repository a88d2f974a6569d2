"""`sophia learn --probe`: what a new model can do, from a pack of questions, before it is tried."""

import asyncio
import json as jsonlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sophia.cli.screen import console, give_up, money, printable, table
from sophia.cli.settings import load_for
from sophia.compose.probing import Estimate, NotProbed, Probed, Wish, probe
from sophia.config import ConfigError
from sophia.core.money import nano_from_usd, usd
from sophia.learning.probing import LEAST_PAIRS
from sophia.learning.snapshots import BrokenSnapshot
from sophia.serving.probe import Marked

_PROBLEMS = 3


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which model is to be probed beside which, for how many US dollars, and whether as JSON."""

    model: str
    against: Sequence[str]
    limit_usd: float
    json: bool = False


def run(wanted: Wanted, config: Path | None, data_dir: str | None) -> None:
    """Probe, and print what came of it; exits with 1 when nothing could be learned."""
    settings = load_for(config, data_dir)
    paper = console(stderr=True)
    columns = (TextColumn("asking"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    try:
        wish = Wish(wanted.model, wanted.against, nano_from_usd(str(wanted.limit_usd)))
    except ValueError as error:
        give_up(str(error), 2)
    with Progress(*columns, console=paper, transient=True) as bar:
        task = bar.add_task("asking", total=None)

        def agree(estimate: Estimate) -> None:
            bar.console.print(_announced(estimate, wanted.limit_usd))
            bar.update(task, total=estimate.questions)

        def hear(_: Marked) -> None:
            bar.advance(task)

        try:
            found = asyncio.run(probe(settings, wish, agree, hear))
        except (NotProbed, ConfigError, BrokenSnapshot, LookupError) as error:
            give_up(printable(str(error)))
    if wanted.json:
        typer.echo(jsonlib.dumps(_facts(found), indent=2))
    else:
        _print(found)
    if found.snapshot is None:
        raise typer.Exit(1)


def _announced(estimate: Estimate, limit: float) -> str:
    beside = " and ".join(estimate.known)
    return (
        f"{estimate.questions} requests to {estimate.model}, beside {beside}: about "
        f"{money(usd(estimate.expected_nano))}, at most {money(limit)} of the "
        f"{money(usd(estimate.most_nano))} that answers of the greatest length would cost."
    )


def _print(found: Probed) -> None:
    paper = console()
    out = table("model", "right", "wrong", "no answer", right=("right", "wrong", "no answer"))
    for model in (found.estimate.model, *found.estimate.known):
        counts = _counts(found, model)
        out.add_row(model, *(str(counts[right]) for right in (True, False, None)))
    paper.print(out)
    for problem in _problems(found):
        typer.secho(printable(problem), fg="yellow", err=True)
    spent = money(usd(found.spent_nano))
    after = found.concluded.after
    if after is None:
        typer.echo(
            f"\nFewer than {LEAST_PAIRS} questions were answered by both sides: nothing changed. "
            f"It cost {spent}."
        )
        return
    before = found.concluded.before
    out = table("kind of work", "pairs", "won", "lost", "believed before", "and now")
    for at, kind in enumerate(found.kinds):
        pairs = found.pairs.get(kind)
        met = ("", "", "")
        if pairs is not None:
            met = (f"{pairs.count:.0f}", f"{pairs.won:g}", f"{pairs.lost:g}")
        told = (f"{one.quality[at]:.2f} ± {one.sd[at]:.2f}" for one in (before, after))
        out.add_row(kind, *met, *told)
    paper.print()
    paper.print(out)
    typer.echo(
        f"\nIn service: {(found.snapshot or '')[:16]}; `--rollback previous` goes back. It cost "
        f"{spent}."
    )


def _counts(found: Probed, model: str) -> "Counter[bool | None]":
    return Counter(one.right for one in found.marks if one.model == model)


def _problems(found: Probed) -> list[str]:
    counted = Counter((one.model, one.problem) for one in found.marks if one.problem)
    return [
        f"{model}: {problem} ({count} times)"
        for (model, problem), count in counted.most_common(_PROBLEMS)
    ]


def _facts(found: Probed) -> dict[str, object]:
    before, after = found.concluded.before, found.concluded.after
    return {
        "model": found.estimate.model,
        "against": list(found.estimate.known),
        "snapshot": found.snapshot,
        "spent_usd": usd(found.spent_nano),
        "expected_usd": usd(found.estimate.expected_nano),
        "answers": [
            {"model": one.model, "probe": one.probe, "right": one.right, "problem": one.problem}
            for one in found.marks
        ],
        "kinds": {
            kind: {
                "before": [float(before.quality[at]), float(before.sd[at])],
                "after": None
                if after is None
                else [float(after.quality[at]), float(after.sd[at])],
            }
            for at, kind in enumerate(found.kinds)
        },
    }
