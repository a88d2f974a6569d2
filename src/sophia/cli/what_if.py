"""`sophia replay --policy`: what the last days would have cost and scored by other policies."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import typer
from rich.console import Console
from rich.text import Text

from sophia.cli.chart import Frame, Series, chart
from sophia.cli.screen import console, give_up, is_roomy, money, printable, table
from sophia.cli.settings import load_for
from sophia.compose import catalogue_of
from sophia.compose.what_if import UnknownPolicy, Wish, told
from sophia.learning.ledger_report import NothingLogged
from sophia.learning.off_policy import Assessment, Comparison, Estimate
from sophia.learning.schema import NotInstalled
from sophia.learning.snapshots import BrokenSnapshot
from sophia.learning.what_if import Part, Replayed, WhatIf

_DAY_MS = 86_400_000
_MARKS = ".abcdefghijklmnopqrstuvwxyz"
_AXIS, _HEIGHT, _WIDEST = 9, 10, 100
_TASKS = 8
_LEGEND = (
    "score: doubly robust, with its 95 % interval; gain: over what was done, on the same requests.",
    "cost: as it was to be expected then, answer by answer; against: as a share of what was done.",
)
_MORE = (
    "agrees: how often it would have taken the model that was taken.",
    "worth: as many decisions of the policy's own would tell as much; under 200, no number.",
)
_REMEDY = (
    "Where a number is refused: take more days (--days), see that more requests get feedback, or "
    "ask for a policy nearer to what was done (--dial). With `learning.explore: false` nothing "
    "but what was done can be told."
)


@dataclass(frozen=True, slots=True)
class Asked:
    """What to find out, and where to draw it."""

    policies: Sequence[str]
    days: float
    dial: str | None = None
    models: str | None = None
    figure: Path | None = None
    json: bool = False


def show(asked: Asked, config: Path | None, data_dir: str | None) -> None:
    """Print what would have been. Exits with 2 for a wrong request, 1 when it cannot be told."""
    settings = load_for(config, data_dir)
    path = Path(settings.data_dir) / "sophia.db"
    if not path.exists():
        give_up(f"No ledger at {path}: `sophia serve` begins one, --data-dir names another.")
    if asked.figure is not None and asked.figure.suffix not in {".png", ".svg"}:
        give_up("--figure names a file that ends in .png or .svg.", 2)
    models = frozenset(one.strip() for one in (asked.models or "").split(",") if one.strip())
    since = int(time.time() * 1000 - asked.days * _DAY_MS)
    wish = Wish(tuple(asked.policies), since, asked.dial, models)
    try:
        with console(stderr=True).status("Reading the ledger …") as status:
            found = asyncio.run(
                told(
                    settings,
                    catalogue_of(settings),
                    wish,
                    lambda step, share: status.update(Text(f"{step} …")),
                )
            )
        if asked.figure is not None:
            _draw(found, asked.figure)
    except UnknownPolicy as error:
        give_up(printable(str(error)), 2)
    except (NothingLogged, BrokenSnapshot) as error:
        give_up(f"{error}\nPolicies learn, and can be judged, from `POST /v1/feedback`.")
    if asked.json:
        typer.echo(msgspec.json.format(msgspec.json.encode(found), indent=2))
    else:
        print_what_if(found, console())


def print_what_if(found: WhatIf, paper: Console) -> None:
    """Print the whole of it: what was, what would have been, by day and by task."""
    _print_facts(found, paper)
    _print_policies(found, paper)
    _print_costs(found, paper)
    for one in found.policies[1:]:
        _print_parts("day", one, one.days, paper)
        _print_parts("task", one, one.tasks[:_TASKS], paper)
        if len(one.tasks) > _TASKS:
            paper.print(f"and {len(one.tasks) - _TASKS} more tasks.", style="dim")


def _print_facts(found: WhatIf, paper: Console) -> None:
    since, until = (
        f"{datetime.fromtimestamp(at / 1000, UTC):%Y-%m-%d %H:%M}"
        for at in (found.since_ms, found.until_ms)
    )
    mean = "-" if found.mean_score is None else f"{found.mean_score:.3f}"
    paper.print(
        f"[bold]{found.judged:,} decisions[/] by lots whose chances were logged, {since} to "
        f"{until} UTC. They were billed {money(found.billed_usd)}; {found.scored:,} of them have a "
        f"score, on average {mean}."
    )
    if found.others:
        paper.print(
            f"{found.others:,} more, billed {money(found.others_billed_usd)}, were taken by the "
            "table, a rule, a tool loop or by name: their model was certain. Of what another would "
            "have scored there, nothing can be known, so they are left out.",
            style="yellow",
        )
    paper.print()


def _print_policies(found: WhatIf, paper: Console) -> None:
    roomy = is_roomy(paper)
    heads = ("score", "gain", "cost", "against", *(("agrees", "worth") if roomy else ()))
    out = table("  policy", *heads, right=heads)
    notes = []
    for mark, one in zip(_MARKS, found.policies, strict=False):
        whole = one.whole
        gain = _said(one.gain.difference, "+.3f") if isinstance(one.gain, Comparison) else "-"
        out.add_row(
            Text(printable(f"{mark} {one.policy}")),
            _score(whole),
            gain,
            money(whole.cost_usd),
            _against(whole),
            *([f"{one.agrees:.0%}", f"{whole.verdict.support.ess:,.0f}"] if roomy else []),
        )
        if not isinstance(whole.verdict, Assessment):
            notes.append(f"No score for {one.policy}: {whole.verdict.reason}.")
        notes += [f"{one.policy}: {one.note}"] if one.note else []
    paper.print(out)
    for line in (*_LEGEND, *(_MORE if roomy else ())):
        paper.print(line, style="dim")
    if any(not isinstance(one.whole.verdict, Assessment) for one in found.policies):
        notes.append(_REMEDY)
    for line in notes:
        paper.print(printable(line), style="yellow", markup=False)


def _print_costs(found: WhatIf, paper: Console) -> None:
    days = [part.name for part in found.policies[0].days]
    if len(days) < 2:
        return
    width = min(paper.width, _WIDEST) - _AXIS - 1
    place = {name: float(at) for at, name in enumerate(days)}
    most = max(part.cost_usd for one in found.policies for part in one.days)
    frame = Frame((0.0, float(len(days) - 1)), (0.0, most or 1.0), width, _HEIGHT)
    series = [
        Series(mark, [place[part.name] for part in one.days], [part.cost_usd for part in one.days])
        for mark, one in zip(_MARKS, found.policies, strict=False)
    ]
    paper.print(f"\nExpected dollars per day, {days[0]} to {days[-1]}, UTC", style="dim")
    # What was done lies on top: where others agree with it, they need not show.
    for number, line in enumerate(chart(series[::-1], frame)):
        label = {0: money(most), _HEIGHT - 1: "0"}.get(number, "")
        paper.print(f"{label:>{_AXIS - 1}} {line}", markup=False, no_wrap=True)


def _print_parts(what: str, one: Replayed, parts: Sequence[Part], paper: Console) -> None:
    if len(parts) < 2:
        return
    heads = ("decisions", "scored", "score", "cost", "against")
    out = table(f"{what}: {printable(one.policy)}", *heads, right=heads)
    for part in parts:
        out.add_row(
            Text(printable(part.name)),
            f"{part.decisions:,}",
            f"{part.scored:,}",
            _score(part),
            money(part.cost_usd),
            _against(part),
        )
    paper.print()
    paper.print(out)


def _score(part: Part) -> str:
    verdict = part.verdict
    if isinstance(verdict, Assessment):
        return _said(verdict.dr, ".3f")
    return f"refused\n[dim]worth {verdict.support.ess:,.0f}[/dim]"


def _against(part: Part) -> str:
    """Return what the cost is of that of what was done."""
    return f"{part.cost_usd / part.done_usd:.0%}" if part.done_usd > 0 else "-"


def _said(one: Estimate, form: str) -> str:
    value, low, high = (format(number, form) for number in (one.value, one.low, one.high))
    return f"{value}\n[dim]\\[{low}, {high}][/dim]"


def _draw(found: WhatIf, path: Path) -> None:
    from sophia.learning.what_if_figure import draw

    try:
        draw(found, path)
    except NotInstalled as error:
        give_up(
            f"--figure needs {error.name}, which is not installed. "
            "Install the extra: pip install 'sophia-router[learn]'"
        )
