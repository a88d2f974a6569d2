"""Bias of judge models towards their own family, measured and corrected.

Models prefer answers that read like their own. A judge of another family is always chosen first;
within a family a score counts only after the judge's bias was measured against channels without a
family, and then at most by half.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from sophia.learning.feedback.sources import JUDGE_CHANNEL, ChannelVote

# Weights are offered under other names: a tuned or distilled model takes after its base.
FAMILY_NAME_PARTS: Mapping[str, tuple[str, ...]] = {
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

PRIOR_SD = 0.10  # of a bias, for scores from 0 to 1
NOISE_SD = 0.35  # of the difference between a judge's score and a reference


class BiasEstimate(Struct, frozen=True):
    """By how much a judge scores a family too high, estimated from `pairs` comparisons."""

    mean: float
    sd: float
    pairs: int


def model_families(model: str) -> frozenset[str]:
    """Return the families of a model id: its author, and those that its name contains."""
    author, _, name = model.lower().removeprefix("~").partition("/")
    if not name:
        author, name = "", author
    named = {
        family for family, parts in FAMILY_NAME_PARTS.items() if any(part in name for part in parts)
    }
    return frozenset(named | ({author} if author else set()))


def is_same_family(judge: str, arm: str) -> bool:
    """Return whether two models share a family."""
    return not model_families(judge).isdisjoint(model_families(arm))


def choose_judge(arm: str, judges: Sequence[str], uniform: float) -> str | None:
    """Return one of the judges of another family than `arm`, or None when there is none.

    `uniform` is a random number in [0, 1) that selects it.
    """
    unrelated = [judge for judge in judges if not is_same_family(judge, arm)]
    return unrelated[int(uniform * len(unrelated))] if unrelated else None


def estimate_biases(
    comparisons: Iterable[tuple[str, str, float]],
) -> dict[tuple[str, str], BiasEstimate]:
    """Return the biases by judge and family, shrunk towards 0.

    A comparison is a judge, the arm that answered, and the judge's score less that of channels
    without a family. A judge's general leniency, as it shows on other families, is subtracted.
    """
    unrelated: defaultdict[str, list[float]] = defaultdict(list)
    gaps: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for judge, arm, gap in comparisons:
        if not is_same_family(judge, arm):
            unrelated[judge].append(gap)
        for family in model_families(arm):
            gaps[judge, family].append(gap)
    leniency = {judge: _shrink(values).mean for judge, values in unrelated.items()}
    return {
        (judge, family): _shrink([gap - leniency.get(judge, 0.0) for gap in values])
        for (judge, family), values in gaps.items()
    }


def correct_score(
    score: float, judge: str, arm: str, biases: Mapping[tuple[str, str], BiasEstimate]
) -> ChannelVote | None:
    """Return the vote of a score without the judge's bias, or None when that bias is unknown.

    Within a family the strength is at most one half, and falls with the uncertainty of the bias.
    """
    if not is_same_family(judge, arm):
        return ChannelVote(JUDGE_CHANNEL, score)
    shared = model_families(judge) & model_families(arm)
    measured = [biases[judge, family] for family in shared if (judge, family) in biases]
    if not measured:
        return None
    worst = max(measured, key=lambda bias: abs(bias.mean))
    strength = 0.5 * max(0.0, 1 - max(bias.sd for bias in measured) ** 2 / PRIOR_SD**2)
    return ChannelVote(JUDGE_CHANNEL, min(max(score - worst.mean, 0.0), 1.0), strength)


def _shrink(gaps: Sequence[float]) -> BiasEstimate:
    precision = 1 / PRIOR_SD**2 + len(gaps) / NOISE_SD**2
    mean = math.fsum(gaps) / NOISE_SD**2 / precision
    return BiasEstimate(mean, precision**-0.5, len(gaps))
