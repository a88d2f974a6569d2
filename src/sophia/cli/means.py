"""The mean score of all answers, as those who speak tell it, in a line for people."""

from sophia.learning.missing import Mean, Means

_LIKENESS = {"request": "by request and model", "score": "by request, model and score"}


def told_means(means: Means) -> str:
    """Return what those who speak say of all."""
    said = f"Mean score of those who spoke {_mean(means.plain)}"
    if means.by in _LIKENESS:
        said += f"; weighed for the silent {_LIKENESS[means.by]} {_mean(means.weighted)}"
    if means.asked is not None:
        said += f"; of those alone whom the lot had judged {_mean(means.asked)}"
    return f"{said}."


def _mean(one: Mean) -> str:
    return f"{one.value:.3f} ± {one.se:.3f} ({one.count:,})"
