"""A decision on the terminal: candidates, attempts in their order, and excluded models."""

from typing import Any

import msgspec
from rich.console import Console
from rich.text import Text

from sophia.cli.terminal import (
    build_console,
    build_table,
    format_count,
    format_money,
    is_wide_terminal,
)

_Row = dict[str, Any]

_POLICIES = {
    "priors": "by public ratings and benchmarks",
    "hierarchical": "by outcomes and public ratings",
    **dict.fromkeys(("heuristic", "cheap", "fast", "best"), "by the table"),
    "pinned": "on the model of its tool calls",
}


class _Decision(msgspec.Struct, kw_only=True):
    """The fields of a decision that are printed; a row is an object of the answer as it came."""

    sentence: str
    policy: str
    features: _Row
    attempts: list[_Row]
    candidates: list[_Row]
    excluded: list[_Row]
    rule: str | None = None
    warning: str | None = None
    learned: _Row | None = None
    served_by: str | None = None
    attempts_made: list[_Row] = []
    feedback: list[_Row] = []


def print_decision(body: bytes) -> None:
    """Print the body of `POST /v1/route` or `GET /v1/decisions/{id}`.

    Raises msgspec.MsgspecError or KeyError for any other body.
    """
    decision = msgspec.json.decode(body, type=_Decision)
    out = build_console()
    out.print(Text(decision.sentence, style="bold"))
    if decision.served_by and decision.served_by != decision.attempts[0]["model"]:
        out.print(Text(f"{decision.served_by} answered: the first choice failed.", style="yellow"))
    out.print(Text(_format_features(decision), style="dim"))
    if decision.warning:
        out.print(Text(decision.warning, style="yellow"))
    if decision.candidates:
        _print_candidates(out, decision)
    _print_attempts(out, decision.attempts)
    if decision.excluded:
        rows = [(each["model"], each["cause"]) for each in decision.excluded]
        out.print("", build_table("excluded", "reason", rows=rows))
    _print_results(out, decision)


def _format_features(decision: _Decision) -> str:
    features = decision.features
    tokens_in, tokens_out = (
        format_count(features["prompt_tokens"]),
        format_count(features["output_tokens"]),
    )
    parts = [
        f"{features['task_type']} ({'declared' if features['task_declared'] else 'estimated'})",
        f"complexity {features['complexity']:.2f}"
        + (" (declared)" if features["complexity_declared"] else ""),
        f"about {tokens_in} tokens in, {tokens_out} out",
        features["language"],
        *_format_wishes(features),
        f"by the rule {decision.rule}" if decision.rule else _POLICIES.get(decision.policy, ""),
    ]
    if decision.learned is not None:
        source = _format_task_source(decision.learned.get("task_source"))
        parts.insert(-1, f"looks like {_format_top_tasks(decision.learned['tasks'])}{source}")
    return " · ".join(filter(None, parts))


def _format_wishes(features: _Row) -> list[str]:
    """Return what the caller asked for; defaults are no wishes."""
    wishes = []
    if features.get("latency_declared"):
        wishes.append(f"first token within {_seconds(features['max_latency_ms'])}")
    if not features["cost_sensitive"]:
        wishes.append("cost does not count")
    return wishes


def _format_task_source(source: _Row | None) -> str:
    """Return the sources of the task probabilities, unless the text is the only one."""
    if source is None or (source["declared"] is None and source["system_prompt"] is None):
        return ""
    parts = [f"by text {_format_top_tasks(source['text'])}"]
    if source["declared"] is not None:
        parts.append(f"declared {source['declared']}")
    if (history := source["system_prompt"]) is not None:
        plural = "s" if history["requests"] > 1 else ""
        earlier = (
            f"{format_count(history['requests'])} earlier request{plural} under its system prompt"
        )
        tasks = _format_top_tasks(history["tasks"])
        parts.append(f"{earlier} {tasks}, weight {history['believed']:.0%}")
    return f" ({'; '.join(parts)})"


def _format_top_tasks(tasks: dict[str, float]) -> str:
    likely = [f"{name} {share:.0%}" for name, share in tasks.items() if share >= 0.1]
    return ", ".join(likely) or "nothing known"


def _print_candidates(console: Console, decision: _Decision) -> None:
    chosen = decision.attempts[0]
    own = next((each for each in decision.candidates if each["model"] == chosen["model"]), None)
    wide = is_wide_terminal(console)
    numbers = ["quality", *(["latency"] if wide else []), "expected"]
    if wide and any("failure_range" in each for each in decision.candidates):
        numbers.append("fails")
    out = build_table("candidate", *numbers, "instead", numeric=numbers)
    for candidate in sorted(
        decision.candidates, key=lambda each: (each is not own, each["expected_usd"])
    ):
        sd = f" ± {candidate['sd']:.2f}" if "sd" in candidate else ""
        instead = "chosen" if candidate is own else _compare_with_chosen(candidate, chosen, own)
        out.add_row(
            Text(candidate["model"]),
            f"{candidate['quality']:.2f}{sd}",
            *([_format_latency(candidate)] if wide else []),
            _format_cost(candidate, with_sd=wide),
            *([_format_failure_rate(candidate)] if "fails" in numbers else []),
            instead + _format_propensity(candidate),
            style="green" if candidate is own else None,
        )
    console.print("", out)


def _format_latency(candidate: _Row) -> str:
    """Return the median latency and, where it is known, the 95th percentile."""
    if "p95_ms" not in candidate:
        return _seconds(candidate["latency_ms"])
    low, high = (
        f"{edge / 1000:.2g}" if edge < 10_000 else f"{edge / 1000:.0f}"
        for edge in (candidate["p50_ms"], candidate["p95_ms"])
    )
    return f"{low}-{high} s"


def _format_cost(candidate: _Row, *, with_sd: bool) -> str:
    sd = candidate.get("cost_sd_usd")
    if not sd or not with_sd:
        return format_money(candidate["expected_usd"])
    cost = candidate["cost_usd"]
    return f"{format_money(cost)} ± {sd / max(cost, sd):.0%}"


def _format_failure_rate(candidate: _Row) -> str:
    if "failure_range" not in candidate:
        return ""
    low, high = candidate["failure_range"]
    return f"{candidate['fail']:.1%} ({low:.0%}-{high:.0%})"


def _compare_with_chosen(candidate: _Row, attempt: _Row, chosen_candidate: _Row | None) -> str:
    parts = []
    cost, chosen_cost = candidate["expected_usd"], attempt["expected_usd"]
    if chosen_cost > 0 and cost > 0:
        ratio = cost / chosen_cost
        parts.append(f"{ratio:.1f}x cost" if ratio >= 0.95 else f"{ratio:.2f}x cost")
    elif cost != chosen_cost:
        parts.append("free" if cost == 0 else f"+{format_money(cost)}")
    if chosen_candidate is not None:
        difference = candidate["quality"] - chosen_candidate["quality"]
        parts.append("as good" if abs(difference) < 0.005 else f"{difference:+.2f}")
    return ", ".join(parts)


def _format_propensity(candidate: _Row) -> str:
    """Return the probability of choosing a candidate, unless it is close to 0 or 1."""
    propensity = candidate.get("propensity", 0.0)
    return f" (chosen {propensity:.0%})" if 0.005 <= propensity < 0.995 else ""


def _print_attempts(console: Console, attempts: list[_Row]) -> None:
    rows = []
    for number, attempt in enumerate(attempts, 1):
        most = attempt["max_tokens"]
        limit = "" if most is None else f" At most {most:,} tokens."
        expected, held = format_money(attempt["expected_usd"]), format_money(attempt["held_usd"])
        rows.append((f"{number}. {attempt['model']}", expected, held, attempt["reason"] + limit))
    amounts = ("expected", "held")
    console.print("", build_table("attempt", *amounts, "reason", numeric=amounts, rows=rows))


def _print_results(console: Console, decision: _Decision) -> None:
    """Print the outcomes and feedback of a request that was carried out."""
    if decision.attempts_made:
        outcomes = [
            (
                f"{number}. {outcome['model']}",
                outcome["failure"] or outcome["finish_reason"] or outcome["state"],
                format_money(outcome["cost_usd"]),
                "-" if outcome["total_ms"] is None else f"{outcome['total_ms'] / 1000:.2f}",
            )
            for number, outcome in enumerate(decision.attempts_made, 1)
        ]
        numbers = ("cost", "seconds")
        console.print(
            "", build_table("outcome", "result", *numbers, numeric=numbers, rows=outcomes)
        )
    if decision.feedback:
        rows = []
        for row in decision.feedback:
            score = "-" if row["score"] is None else f"{row['score']:.2f}"
            rows.append((row["channel"], score, row["label"] or "-"))
        console.print("", build_table("feedback", "score", "label", numeric=("score",), rows=rows))


def _seconds(milliseconds: int) -> str:
    return f"{milliseconds / 1000:g} s"
