"""`sophia learn --arms`: what is known of each model and way of calling it, and how surely."""

import json as jsonlib
from pathlib import Path

import typer

from sophia.cli.screen import console, give_up, money, table
from sophia.cli.settings import load_for
from sophia.compose import data_folder
from sophia.compose.arms import ANSWER_TOKENS, PROMPT_TOKENS, Known, known_arms
from sophia.compose.learning import history_of
from sophia.config import Settings
from sophia.core.money import usd
from sophia.learning.snapshots import BrokenSnapshot
from sophia.routing.arms import model_of

_READING = (
    f"Cost and seconds are of a whole answer to {PROMPT_TOKENS:,} tokens where {ANSWER_TOKENS} are "
    "expected.\nIn brackets: between what the median and the share of failures lie, nine times in "
    "ten."
)


def show(key_id: str | None, json: bool, config: Path | None, data_dir: str | None) -> None:
    """Print the arms, the best first; `key_id` is the key whose outcomes count."""
    settings = load_for(config, data_dir)
    try:
        known = known_arms(settings, key_id or "")
    except BrokenSnapshot as error:
        give_up(str(error))
    known.sort(key=lambda one: (-one.quality, one.arm))
    if json:
        typer.echo(jsonlib.dumps([facts(one) for one in known], indent=2))
        return
    numbers = ("quality", "cost", "p50", "p95", "fails", "answers")
    out = table("arm", *numbers, right=numbers)
    for one in known:
        usual = one.usual
        low, high = usual.p50_range_ms
        least, most = usual.failure_range
        out.add_row(
            one.arm,
            f"{one.quality:.2f} ± {one.sd:.2f}",
            f"{money(usd(round(one.cost_nano)))} ± {money(usd(round(usual.cost_sd_nano)))}",
            f"{_seconds(usual.p50_ms)} ({_seconds(low)}-{_seconds(high)})",
            _seconds(usual.p95_ms),
            f"{usual.failure_rate:.1%} ({least:.1%}-{most:.1%})",
            f"{one.answers:,}",
        )
    console().print(out)
    typer.echo(f"\n{_READING}")


def facts(one: Known) -> dict[str, object]:
    """Return an arm as JSON-able data."""
    usual = one.usual
    return {
        "arm": one.arm,
        "quality": one.quality,
        "sd": one.sd,
        "expected_usd": usd(round(one.cost_nano)),
        "cost_sd_usd": usd(round(usual.cost_sd_nano)),
        "p50_ms": round(usual.p50_ms),
        "p50_range_ms": [round(edge) for edge in usual.p50_range_ms],
        "p95_ms": round(usual.p95_ms),
        "failure_rate": round(usual.failure_rate, 4),
        "failure_range": [round(edge, 4) for edge in usual.failure_range],
        "answers": one.answers,
    }


def _seconds(milliseconds: float) -> str:
    seconds = milliseconds / 1000
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"


def by_model(settings: Settings) -> dict[str, list[dict[str, object]]]:
    """Return what is known of the arms of each model; nothing before anything was learned."""
    if not history_of(data_folder(settings)):
        return {}
    found: dict[str, list[dict[str, object]]] = {}
    for one in known_arms(settings):
        found.setdefault(model_of(one.arm), []).append(facts(one))
    return found
