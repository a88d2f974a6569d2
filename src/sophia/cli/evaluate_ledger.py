"""`sophia eval --ledger`: what other policies would have scored and cost on your own traffic."""

import asyncio
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.text import Text

from sophia.cli.means import told_means
from sophia.cli.screen import console, give_up, is_roomy, money, printable, table
from sophia.cli.settings import load_for
from sophia.compose import open_store
from sophia.compose.learning import read_plan
from sophia.config import Settings
from sophia.learning.ledger_report import (
    TRAINED,
    USUAL,
    LedgerReport,
    NothingLogged,
    Target,
    report,
)
from sophia.learning.logged import Found, decisions_of
from sophia.learning.off_policy import Assessment, Comparison, Estimate
from sophia.learning.schema import NotInstalled, require_learn

_LEGEND = (
    "score: doubly robust, with its 95 % interval; IPS, SNIPS: by weights alone.",
    "gain: over what was logged, on the same requests. cost: expected, of a request.",
    "worth: as many decisions of the policy's own would tell as much; under 200, no number.",
)


def judged(
    policies: Sequence[str], days: float, seed: int, config: Path | None, data_dir: str | None
) -> LedgerReport:
    """Print and return the report. Exits with 1 when the ledger cannot tell anything."""
    settings = load_for(config, data_dir)
    path = Path(settings.data_dir) / "sophia.db"
    if not path.exists():
        give_up(f"No ledger at {path}: `sophia serve` begins one, --data-dir names another.")
    _check_trained(policies)
    paper = console(stderr=True)
    try:
        with paper.status("Reading the ledger …"):
            found = asyncio.run(_read(settings, int((time.time() - days * 86_400) * 1000)))
        with paper.status("Judging …") as status:
            told = report(
                found, policies or USUAL, seed, lambda step, share: status.update(f"{step} …")
            )
    except NothingLogged as error:
        give_up(f"{error}\nPolicies learn, and can be judged, from `POST /v1/feedback`.")
    show_report(told, console())
    return told


def show_report(told: LedgerReport, paper: Console) -> None:
    """Print the report."""
    since, until = (
        f"{datetime.fromtimestamp(at / 1000, UTC):%Y-%m-%d %H:%M}"
        for at in (told.since_ms, told.until_ms)
    )
    paper.print(
        f"[bold]{told.decisions:,} learned decisions[/]; {told.others:,} more were not taken by "
        f"what was learned. Policies learned from the first {told.learned_from:,}; judged by the "
        f"last {told.judged:,}, {since} to {until} UTC, of which {told.scored:,} have a score."
    )
    if told.means is not None:
        paper.print(told_means(told.means))
    roomy = is_roomy(paper)
    heads = ("score", "gain", *(("IPS", "SNIPS") if roomy else ()), "worth", "cost")
    out = table("policy", *heads, right=heads)
    refused = []
    for target in told.targets:
        out.add_row(Text(printable(target.policy)), *_cells(target, roomy=roomy))
        if not isinstance(target.verdict, Assessment):
            refused.append(f"{target.policy}: {target.verdict.reason}")
    paper.print(out)
    for line in _LEGEND:
        paper.print(line, style="dim")
    for line in [*(f"No number for {reason}." for reason in refused), *told.notes]:
        paper.print(printable(line), style="yellow", markup=False, emoji=False)


def _cells(target: Target, *, roomy: bool) -> list[str]:
    verdict, gain = target.verdict, target.gain
    worth, cost = f"{verdict.support.ess:,.0f}", money(target.cost_usd)
    if not isinstance(verdict, Assessment):
        return ["refused", "-", *(["-", "-"] if roomy else []), worth, cost]
    plain = [f"{one.value:.3f}" for one in (verdict.ips, verdict.snips)] if roomy else []
    told = _said(gain.difference, "+.3f") if isinstance(gain, Comparison) else "-"
    return [_said(verdict.dr, ".3f"), told, *plain, worth, cost]


def _said(one: Estimate, form: str) -> str:
    value, low, high = (format(number, form) for number in (one.value, one.low, one.high))
    return f"{value}\n[dim]\\[{low}, {high}][/dim]"


def _check_trained(policies: Sequence[str]) -> None:
    if TRAINED.isdisjoint(policies):
        return
    try:
        require_learn()
    except NotInstalled as error:
        give_up(
            f"{', '.join(sorted(TRAINED.intersection(policies)))} cannot be learned without "
            f"{error.name}. Install the extra: pip install 'sophia-router[learn]'"
        )


async def _read(settings: Settings, since_ms: int) -> Found:
    store = open_store(settings)
    try:
        return await decisions_of(
            store, read_plan, since_ms, shared=settings.learning.share_keys
        )
    finally:
        await store.close()
