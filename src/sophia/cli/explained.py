"""A decision on the terminal: who could answer, who is tried in which order, who cannot."""

import msgspec
from rich.console import Console
from rich.text import Text

from sophia.catalogue.snapshot import bundled_profiles
from sophia.cli.screen import console, count, is_roomy, money, table


class _Candidate(msgspec.Struct):
    model: str
    quality: float
    latency_ms: int
    expected_usd: float
    sd: float | None = None
    propensity: float | None = None
    cost_usd: float | None = None
    cost_sd_usd: float | None = None
    p50_ms: int | None = None
    p95_ms: int | None = None
    fail: float | None = None
    failure_range: tuple[float, float] | None = None


class _SystemPrompt(msgspec.Struct):
    requests: int
    believed: float
    tasks: dict[str, float]


class _ToldBy(msgspec.Struct):
    text: dict[str, float]
    declared: str | None = None
    system_prompt: _SystemPrompt | None = None


class _Learned(msgspec.Struct):
    tasks: dict[str, float]
    told_by: _ToldBy | None = None


class _Attempt(msgspec.Struct):
    model: str
    reason: str
    expected_usd: float
    held_usd: float
    max_tokens: int | None = None


class _Excluded(msgspec.Struct):
    model: str
    cause: str


class _Features(msgspec.Struct):
    task_type: str
    task_declared: bool
    complexity: float
    complexity_declared: bool
    prompt_tokens: int
    output_tokens: int
    language: str
    max_latency_ms: int
    cost_sensitive: bool


class _Decision(msgspec.Struct):
    sentence: str
    policy: str
    features: _Features
    attempts: list[_Attempt]
    candidates: list[_Candidate]
    excluded: list[_Excluded]
    rule: str | None = None
    notes: list[str] = []
    warning: str | None = None
    learned: _Learned | None = None


_decision = msgspec.json.Decoder(_Decision)


def show(body: bytes) -> None:
    """Print the body of `POST /v1/route`. Raises msgspec.MsgspecError when it is none."""
    decision = _decision.decode(body)
    paper = console()
    paper.print(Text(decision.sentence, style="bold"))
    paper.print(Text(_seen(decision), style="dim"))
    for note in [*decision.notes, *([decision.warning] if decision.warning else [])]:
        paper.print(Text(note, style="yellow"))
    if decision.candidates:
        _candidates(paper, decision)
    _attempts(paper, decision.attempts)
    if decision.excluded:
        out = table("left out", "why")
        for one in decision.excluded:
            out.add_row(Text(one.model), Text(one.cause))
        paper.print()
        paper.print(out)


def _seen(decision: _Decision) -> str:
    seen = decision.features
    parts = [
        f"{seen.task_type} ({'declared' if seen.task_declared else 'estimated'})",
        f"complexity {seen.complexity:.2f}" + (" (declared)" if seen.complexity_declared else ""),
        f"about {count(seen.prompt_tokens)} tokens in, {count(seen.output_tokens)} out",
        seen.language,
        f"first token within {_seconds(seen.max_latency_ms)}",
        "cost counts" if seen.cost_sensitive else "cost does not count",
        *_tasks(decision.learned),
        f"by the rule {decision.rule}" if decision.rule else f"by the {decision.policy} policy",
    ]
    return " · ".join(parts)


def _tasks(learned: _Learned | None) -> list[str]:
    if learned is None:
        return []
    return [f"looks like {_likely(learned.tasks)}{_told_by(learned.told_by)}"]


def _told_by(told: _ToldBy | None) -> str:
    """Return what the tasks were told from, where it was more than the text."""
    if told is None or (told.declared is None and told.system_prompt is None):
        return ""
    parts = [f"the text says {_likely(told.text)}"]
    if told.declared is not None:
        parts.append(f"the caller {told.declared}")
    if told.system_prompt is not None:
        one = told.system_prompt
        earlier = f"{count(one.requests)} earlier request{'s' if one.requests > 1 else ''}"
        parts.append(
            f"{earlier} under its system prompt {_likely(one.tasks)}, believed {one.believed:.0%}"
        )
    return f" ({'; '.join(parts)})"


def _likely(tasks: dict[str, float]) -> str:
    found = [f"{name} {chance:.0%}" for name, chance in tasks.items() if chance >= 0.1]
    return ", ".join(found) or "nothing known"


def _candidates(paper: Console, decision: _Decision) -> None:
    chosen = decision.attempts[0]
    own = next((one for one in decision.candidates if one.model == chosen.model), None)
    roles = {entry.id: entry.profile.role for entry in bundled_profiles().entries}
    roomy = is_roomy(paper)
    numbers = ("quality", "latency", "expected", *(["fails"] if roomy and _told(decision) else []))
    out = table("candidate", *(["role"] if roomy else []), *numbers, "instead", right=numbers)
    for one in sorted(decision.candidates, key=lambda one: (one is not own, one.expected_usd)):
        out.add_row(
            Text(one.model),
            *([roles.get(one.model, "")] if roomy else []),
            f"{one.quality:.2f}" + ("" if one.sd is None else f" ± {one.sd:.2f}"),
            _time(one),
            _cost(one),
            *([_failing(one)] if "fails" in numbers else []),
            "chosen" + _chance(one) if one is own else _instead(one, chosen, own) + _chance(one),
            style="green" if one is own else None,
        )
    paper.print()
    paper.print(out)


def _told(decision: _Decision) -> bool:
    return any(one.failure_range is not None for one in decision.candidates)


def _time(one: _Candidate) -> str:
    """Return the time that half of all answers keep and, where it is known, that 95 % keep."""
    if one.p50_ms is None or one.p95_ms is None:
        return _seconds(one.latency_ms)
    return f"{_rough(one.p50_ms)}-{_rough(one.p95_ms)} s"


def _cost(one: _Candidate) -> str:
    if one.cost_usd is None or not one.cost_sd_usd:
        return money(one.expected_usd)
    return f"{money(one.cost_usd)} ± {one.cost_sd_usd / max(one.cost_usd, one.cost_sd_usd):.0%}"


def _failing(one: _Candidate) -> str:
    if one.fail is None or one.failure_range is None:
        return ""
    low, high = one.failure_range
    return f"{one.fail:.1%} ({low:.0%}-{high:.0%})"


def _rough(milliseconds: int) -> str:
    return f"{milliseconds / 1000:.2g}" if milliseconds < 10_000 else f"{milliseconds / 1000:.0f}"


def _instead(one: _Candidate, chosen: _Attempt, own: _Candidate | None) -> str:
    parts = []
    if chosen.expected_usd > 0 and one.expected_usd > 0:
        parts.append(_times(one.expected_usd / chosen.expected_usd))
    elif one.expected_usd != chosen.expected_usd:
        parts.append("free" if one.expected_usd == 0 else f"+{money(one.expected_usd)}")
    if own is not None:
        difference = one.quality - own.quality
        parts.append("as good" if abs(difference) < 0.005 else f"{difference:+.2f}")
    return ", ".join(parts)


def _chance(one: _Candidate) -> str:
    """Return with what probability a learned policy takes a candidate, unless never or always."""
    if one.propensity is None or not 0.005 <= one.propensity < 0.995:
        return ""
    return f" (taken {one.propensity:.0%})"


def _times(ratio: float) -> str:
    return f"{ratio:.1f}x cost" if ratio >= 0.95 else f"{ratio:.2f}x cost"


def _attempts(paper: Console, attempts: list[_Attempt]) -> None:
    out = table("attempt", "expected", "held", "reason", right=("expected", "held"))
    for number, one in enumerate(attempts, 1):
        limit = f" At most {one.max_tokens:,} tokens." if one.max_tokens is not None else ""
        expected, held = money(one.expected_usd), money(one.held_usd)
        out.add_row(Text(f"{number}. {one.model}"), expected, held, Text(one.reason + limit))
    paper.print()
    paper.print(out)


def _seconds(milliseconds: int) -> str:
    return f"{milliseconds / 1000:g} s"
