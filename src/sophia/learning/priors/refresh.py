"""Priors of models that no shipped rating covers, from OpenRouter's `GET /benchmarks`.

An index of Artificial Analysis orders models as ratings do. Over the models that have both, a line
in log odds turns an index into an expected score for each kind of work; its residuals are added to
the spread. A model with a rating or a measurement keeps it.
"""

import hashlib
from collections.abc import Iterable, Mapping

import msgspec
import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from sophia.learning.priors.book import (
    MIN_SD,
    UNKNOWN_SD,
    ArmPrior,
    BenchmarkSource,
    PriorBook,
    PriorTable,
    SavedPriors,
)
from sophia.routing.bandit.policy import Matrix, Vector

SOURCE = "Artificial Analysis"
MIN_MODELS = 8
"""Models with an index and a rating from which a line is fitted."""
_INDEX_OF_KIND = {"code": "coding_index", "agentic": "agentic_index"}
_GENERAL_INDEX = "intelligence_index"


class _Row(Struct, frozen=True):
    model_permaslug: str = ""
    intelligence_index: float | None = None
    coding_index: float | None = None
    agentic_index: float | None = None

    def index(self, kind: str) -> float | None:
        """Return the index that resembles a kind of work."""
        own: float | None = getattr(self, _INDEX_OF_KIND.get(kind, _GENERAL_INDEX))
        return self.intelligence_index if own is None else own


class _Meta(Struct, frozen=True):
    as_of: str = ""
    citation: str = ""


class _Benchmarks(Struct, frozen=True):
    data: list[_Row]
    meta: _Meta = _Meta()


def refresh_priors(book: PriorBook, body: bytes, now_ms: int) -> SavedPriors | None:
    """Return `book` with priors of the models that only `body` covers; None when it adds none.

    Args:
        book: the shipped priors.
        body: the answer of `GET /benchmarks?source=artificial-analysis`.
        now_ms: the present time, in milliseconds since 1970.

    Raises:
        msgspec.DecodeError: the body has another form.
    """
    found = msgspec.json.decode(body, type=_Benchmarks)
    rows = {row.model_permaslug: row for row in found.data if row.intelligence_index is not None}
    known = {name: prior for name in rows if (prior := _find_own(book, name)) is not None}
    unknown = [name for name in rows if name not in known]
    if len(known) < MIN_MODELS or not unknown:
        return None
    columns = [
        _predict(
            {name: prior.mean[at] for name, prior in known.items()},
            {name: rows[name].index(kind) or 0.0 for name in rows},
            unknown,
        )
        for at, kind in enumerate(book.table.kinds)
    ]
    means, sds = (np.array([column[part] for column in columns]).T for part in (0, 1))
    arms = book.table.arms | dict(_build_arms(unknown, means, sds))
    source = BenchmarkSource(
        file="benchmarks",
        sha256=hashlib.sha256(body).hexdigest(),
        as_of=found.meta.as_of[:40],
        credit=found.meta.citation[:500] or SOURCE,
        arms=len(rows),
        tasks=(_GENERAL_INDEX, *_INDEX_OF_KIND.values()),
    )
    table = PriorTable(
        kinds=book.table.kinds,
        arms=arms,
        by_size=book.table.by_size,
        sources=(*book.table.sources, SOURCE),
    )
    saved = SavedPriors(created_ms=now_ms, sources=(source,), priors=table)
    return replace(saved, sha256=saved.digest())


def _find_own(book: PriorBook, name: str) -> ArmPrior | None:
    prior = book.find(name)
    return prior if prior is not None and prior.basis in ("rated", "measured") else None


def _predict(
    scores: Mapping[str, float], index: Mapping[str, float], wanted: list[str]
) -> tuple[Vector, Vector]:
    """Return the means and the sds of `wanted` by the line through the known scores."""
    x = np.array([index[name] for name in scores])
    y = np.log(np.array(list(scores.values()))) - np.log1p(-np.array(list(scores.values())))
    slope = max(float(np.cov(x, y)[0, 1] / max(x.var(ddof=1), 1e-9)), 0.0)
    start = float(y.mean() - slope * x.mean())
    residual = float((y - start - slope * x).std())
    mean = 1.0 / (1.0 + np.exp(-(start + slope * np.array([index[name] for name in wanted]))))
    # The known scores are expectations themselves, with a spread of about half a step of odds.
    sd = np.clip(np.hypot(residual, 0.5) * mean * (1.0 - mean), MIN_SD, UNKNOWN_SD)
    return mean, sd


def _build_arms(names: list[str], means: Matrix, sds: Matrix) -> Iterable[tuple[str, ArmPrior]]:
    for name, mean, sd in zip(names, means.tolist(), sds.tolist(), strict=True):
        rounded = [tuple(round(value, 3) for value in values) for values in (mean, sd)]
        yield name, ArmPrior(rounded[0], rounded[1], "rated", (SOURCE,))
