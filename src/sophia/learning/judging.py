"""Who may judge whom: a model's verdict on its own family is set apart, measured, and corrected.

Models favour answers that read like their own. A judge of another family is always preferred; a
relative's score is used only after its favour has been measured against channels that have no
family, and then less.
"""

import math
from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

# Weights that are offered under other names: a tuned or distilled model takes after its base.
LINEAGES: Mapping[str, tuple[str, ...]] = {
    "anthropic": ("claude",),
    "deepseek": ("deepseek",),
    "google": ("gemini", "gemma"),
    "meta-llama": ("llama",),
    "mistralai": ("mistral", "mixtral", "ministral", "codestral", "devstral"),
    "moonshotai": ("kimi",),
    "openai": ("gpt-", "chatgpt"),
    "qwen": ("qwen", "qwq"),
    "x-ai": ("grok",),
    "z-ai": ("glm",),
}

PRIOR_SD = 0.10
"""What a judge's favour may be before it was measured, in score from 0 to 1."""

NOISE_SD = 0.35
"""How far a single pair of judge and reference lie apart for other reasons."""


class Pair(Struct, frozen=True):
    """A judge's score of an answer beside what a channel without a family said of it."""

    judge: str
    arm: str
    score: float
    reference: float


class Favour(Struct, frozen=True):
    """How much better a judge scores one family than the answers deserve, and how sure that is."""

    mean: float
    sd: float
    pairs: int


class Judgement(Struct, frozen=True):
    """A judge's score after its favour was taken off; `strength` from 0 to 1 as a vote has it."""

    score: float
    strength: float


def families(model: str) -> frozenset[str]:
    """Return the families of a model id: its author, and those that its name betrays."""
    author, _, name = model.lower().removeprefix("~").partition("/")
    if not name:
        author, name = "", author
    betrayed = {
        family for family, marks in LINEAGES.items() if any(mark in name for mark in marks)
    }
    return frozenset(betrayed | ({author} if author else set()))


def kin(judge: str, arm: str) -> bool:
    """Return whether a judge and the judged share a family."""
    return not families(judge).isdisjoint(families(arm))


def choose_judge(arm: str, judges: Sequence[str], draw: float) -> str | None:
    """Return a judge for an answer of `arm` by lot, or None when all are relatives.

    Args:
        arm: the model that answered.
        judges: who may judge.
        draw: a number in [0, 1) that the caller drew.
    """
    strangers = [judge for judge in judges if not kin(judge, arm)]
    return strangers[int(draw * len(strangers))] if strangers else None


def measure(pairs: Iterable[Pair]) -> dict[tuple[str, str], Favour]:
    """Return each judge's favour by family, shrunk towards none, from answers that both scored.

    A judge's general mildness, as it shows on strangers, is taken off first.
    """
    apart: dict[str, list[float]] = {}
    gaps: dict[tuple[str, str], list[float]] = {}
    for pair in pairs:
        gap = pair.score - pair.reference
        if not kin(pair.judge, pair.arm):
            apart.setdefault(pair.judge, []).append(gap)
        for family in families(pair.arm):
            gaps.setdefault((pair.judge, family), []).append(gap)
    mild = {judge: _shrunk(told).mean for judge, told in apart.items()}
    return {
        (judge, family): _shrunk([gap - mild.get(judge, 0.0) for gap in told])
        for (judge, family), told in gaps.items()
    }


def corrected(
    score: float, judge: str, arm: str, favours: Mapping[tuple[str, str], Favour]
) -> Judgement | None:
    """Return a judge's score without its favour, or None when a relative's favour is unknown.

    A relative's strength falls with what is still unknown of its favour, to a half at the most.
    """
    if not kin(judge, arm):
        return Judgement(score, 1.0)
    shared = families(judge) & families(arm)
    known = [favours[judge, family] for family in shared if (judge, family) in favours]
    if not known:
        return None
    worst = max(known, key=lambda favour: abs(favour.mean))
    strength = 0.5 * max(0.0, 1 - max(favour.sd for favour in known) ** 2 / PRIOR_SD**2)
    return Judgement(min(max(score - worst.mean, 0.0), 1.0), strength)


def _shrunk(gaps: Sequence[float]) -> Favour:
    precision = 1 / PRIOR_SD**2 + len(gaps) / NOISE_SD**2
    mean = math.fsum(gaps) / NOISE_SD**2 / precision
    return Favour(mean, precision**-0.5, len(gaps))
