"""What is believed of an arm before any outcome: from benchmark tables, by kind of work.

A measured arm gets what the tables say, an heir what they say of its forebear, a stranger what they
say of its family and of the arms of today; each with the spread that held-out tables had. What an
arm costs is no part of it: price is a poor guess at quality.
"""

from collections.abc import Container, Mapping, Sequence
from typing import Literal

import numpy as np
from msgspec import Struct, json

from sophia.learning.factor import Cells, Factors, Vector, fit, log_odds, share
from sophia.learning.held_out import held_out, spread_of
from sophia.learning.judging import families
from sophia.routing.policies.policy import Prior

Basis = Literal["measured", "heir", "stranger"]

LEAST_SD = 0.03
"""A benchmark is not the traffic: nobody's prior is surer than this."""

STRANGER_SD = (0.10, 0.15)
"""The range of the spread for an arm without a benchmark, by kind."""

_KINDRED = 0.5
"""How much of an arm's departure on a task carries over to others of its kind, and how much of a
family's past to its next model; our judgement."""


class Standing(Struct, frozen=True):
    """One arm: its expected score and spread by kind, on what basis, and of which tables or arm."""

    mean: tuple[float, ...]
    sd: tuple[float, ...]
    basis: Basis
    of: tuple[str, ...] = ()


class Book(Struct, frozen=True):
    """Priors by kind of work.

    Attributes:
        kinds: the kinds, in the order of every mean and sd.
        arms: the standing of each arm that is known.
        families: what is expected of strangers, by family.
        stranger: what is expected of an arm of no known family.
        spread: by how much the variance was widened to fit held-out tables.
        sources: the tables that this was made from, with their licences.
    """

    kinds: tuple[str, ...]
    arms: dict[str, Standing]
    families: dict[str, Standing]
    stranger: Standing
    spread: float
    sources: tuple[str, ...]


def standing(book: Book, arm: str) -> Standing:
    """Return what the book says of an arm; variants such as `:free` stand as the model does."""
    for name in (arm, arm.partition(":")[0]):
        if name in book.arms:
            return book.arms[name]
    known = [book.families[name] for name in sorted(families(arm)) if name in book.families]
    return known[0] if known else book.stranger


def prior(book: Book, arm: str, classes: Sequence[Sequence[str]]) -> Prior:
    """Return an arm's prior over a taxonomy.

    Args:
        book: the priors by kind.
        arm: an arm's id.
        classes: for each class of the taxonomy the kinds that it is like; a class without any gets
            the mean of all kinds, less surely.
    """
    stands = standing(book, arm)
    mean, sd = np.array(stands.mean), np.array(stands.sd)
    place = {kind: at for at, kind in enumerate(book.kinds)}
    means, sds = np.empty(len(classes)), np.empty(len(classes))
    for at, kinds in enumerate(classes):
        like = [place[kind] for kind in kinds if kind in place]
        chosen = like or list(range(len(book.kinds)))
        means[at] = mean[chosen].mean()
        variance = float((sd[chosen] ** 2).mean())
        if not like:
            variance += float(mean.var())
        sds[at] = np.sqrt(variance)
    return Prior(means, sds)


def book(  # noqa: PLR0913 # what the tables say, and what their names stand for
    cells: Cells,
    kinds: Mapping[str, str],
    heirs: Mapping[str, tuple[str, int]],
    pairs: Sequence[tuple[str, str]],
    listed: Container[str],
    *,
    parts: int = 30,
    anchors: Container[str] | None = None,
) -> Book:
    """Return the priors that benchmark tables come to.

    Args:
        cells: the tables.
        kinds: the kind of each task.
        heirs: for ids of today a measured forebear, and how many generations lie between; none
            for another name of the same model.
        pairs: older and newer arms of one line that were both measured.
        listed: the ids of today; what is measured of them places those that are not.
        parts: how often the tables are fitted with a part hidden, to see how far off they are.
        anchors: the sources whose tasks are as hard as requests are, so that they say how well a
            kind of work is done; the others only compare models, as an index does. None: all.
    """
    spread = spread_of(held_out(cells, parts=parts))
    made = _Maker(cells, fit(cells), kinds, spread, anchors)
    gain, doubt = made.generation(pairs)
    arms = {arm: made.measured(at) for at, arm in enumerate(cells.arms)}
    for arm, (forebear, generations) in sorted(heirs.items()):
        if arm not in arms and forebear in cells.arms:
            at = cells.arms.index(forebear)
            same = arms[forebear] if not generations else None
            arms[arm] = same or made.heir(at, gain * generations, doubt * generations)
    today = made.level([arm for arm in cells.arms if arm in listed])
    known = {name: made.stranger(name, today) for name in sorted(made.factors.family)}
    sources = tuple(sorted(set(cells.sources)))
    return Book(made.names, arms, known, made.stranger("", today), spread, sources)


def encode(made: Book) -> bytes:
    """Return the book as JSON, the same for the same book."""
    return json.format(json.encode(made, order="deterministic"), indent=1) + b"\n"


def decode(blob: bytes) -> Book:
    """Return the book written in `blob`. Raises msgspec.ValidationError when it is none."""
    return json.decode(blob, type=Book)


class _Maker:
    """Turns factors into standings."""

    def __init__(
        self,
        cells: Cells,
        factors: Factors,
        kinds: Mapping[str, str],
        spread: float,
        anchors: Container[str] | None,
    ) -> None:
        self._cells = cells
        self.factors = factors
        self.names = tuple(sorted({kinds[task] for task in cells.tasks}))
        member = np.array([self.names.index(kinds[task]) for task in cells.tasks])
        self._of_kind = member == np.arange(len(self.names))[:, None]
        self._spread = spread
        # A kind's line is that of its typical task; small tables count for no more than large ones.
        typical = np.array([anchors is None or source in anchors for source in cells.sources])
        lines = [rows & typical if np.any(rows & typical) else rows for rows in self._of_kind]
        self._intercept = np.array([np.median(factors.intercept[rows]) for rows in lines])
        self._loading = np.array([np.median(factors.loading[rows]) for rows in lines])

    def measured(self, at: int) -> Standing:
        """Return the standing of a measured arm, with how it departs on each kind."""
        shift, left = self._departures(at)
        odds = self._intercept + self._loading * self.factors.ability[at] + shift
        variance = self._loading**2 * self.factors.unsure[at] + left
        seen = np.isfinite(self._cells.score[:, at])
        of = {source for source, known in zip(self._cells.sources, seen, strict=True) if known}
        return self._standing(odds, variance, "measured", tuple(sorted(of)))

    def heir(self, at: int, gain: float, doubt: float) -> Standing:
        """Return the standing of an arm that follows a measured one, whose departures it keeps."""
        shift, left = self._departures(at)
        odds = self._intercept + self._loading * (self.factors.ability[at] + gain) + shift
        variance = self._loading**2 * (self.factors.unsure[at] + doubt) + left
        return self._standing(odds, variance, "heir", (self._cells.arms[at],), STRANGER_SD)

    def stranger(self, family: str, today: float) -> Standing:
        """Return the standing of an arm without a benchmark: like today's arms, hardly sure."""
        usual, loose = self.factors.family.get(family, (0.0, 0.0))
        variance = self._loading**2 * (loose + self.factors.within) + self._open()
        # The tables lag behind: today's arms say how good, the family only how good among them.
        odds = self._intercept + self._loading * (today + _KINDRED * usual)
        return self._standing(odds, variance, "stranger", (), STRANGER_SD)

    def level(self, arms: Sequence[str]) -> float:
        """Return the mean ability of `arms`."""
        places = [at for at, arm in enumerate(self._cells.arms) if arm in set(arms)]
        return float(self.factors.ability[places].mean()) if places else 0.0

    def generation(self, pairs: Sequence[tuple[str, str]]) -> tuple[float, float]:
        """Return what a generation gains in ability, and the variance of that from line to line."""
        place = {arm: at for at, arm in enumerate(self._cells.arms)}
        gains = [
            float(self.factors.ability[place[new]] - self.factors.ability[place[old]])
            for old, new in pairs
            if old in place and new in place
        ]
        if len(gains) < 2:
            return 0.0, 0.25
        return float(np.mean(gains)), float(np.var(gains, ddof=1))

    def _open(self) -> Vector:
        """Return the variance of what one arm does on a task of a kind, its ability given."""
        return np.asarray(self._loading**2 * self.factors.drift + self.factors.noise)

    def _departures(self, at: int) -> tuple[Vector, Vector]:
        cells, factors = self._cells, self.factors
        seen = np.isfinite(cells.score[:, at])
        score = np.where(seen, cells.score[:, at], 0.5)
        odds, sampling = log_odds(score, np.where(seen, cells.error[:, at], 1.0))
        missed = odds - factors.intercept - factors.loading * factors.ability[at]
        lasting, passing = _KINDRED * self._open(), (1 - _KINDRED) * self._open()
        shift, left = np.zeros(len(self.names)), lasting + passing
        for kind, rows in enumerate(self._of_kind & seen):
            if not rows.any():
                continue
            weight = 1 / (sampling[rows] + factors.noise)
            told = 1 / weight.sum() + passing[kind]
            keep = lasting[kind] / (lasting[kind] + told)
            shift[kind] = keep * float(weight @ missed[rows]) / float(weight.sum())
            left[kind] = lasting[kind] * (1 - keep) + passing[kind]
        return shift, left

    def _standing(
        self,
        odds: Vector,
        variance: Vector,
        basis: Basis,
        of: tuple[str, ...],
        limits: tuple[float, float] = (LEAST_SD, STRANGER_SD[1]),
    ) -> Standing:
        mean = share(odds)
        sd = np.clip(np.sqrt(variance * self._spread) * mean * (1 - mean), *limits)
        return Standing(_rounded(mean), _rounded(sd), basis, of)


def _rounded(values: Vector) -> tuple[float, ...]:
    return tuple(round(float(value), 4) for value in values)
