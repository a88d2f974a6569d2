"""How arms answer: how long, how fast and how surely, each with its doubt; learned as they answer.

`lengths` and `timing` have the mathematics of the first two. Failures are a Beta posterior, of
which an hour leaves half. Every update is of one size, whatever came before, and what a forecast
needs stands ready in arrays.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from numpy.typing import NDArray

from sophia.routing.arms import CALLS, arm_of, is_particular, model_of, relatives
from sophia.routing.forecast import Answer, Asked, Forecast
from sophia.routing.lengths import Lengths, Scatter
from sophia.routing.timing import DOUBT, STRANGER, Clock, Pace

_Place = slice | NDArray[np.intp]

HALF_LIFE_MS = 3_600_000.0
FAILS, TRIES = 0.2, 10.0
"""What every arm's failures begin with: two in a hundred, counting as ten tries."""

_ANYBODY = 0
_FARTHEST = 4.0
_LEAST_MS, _LONGEST_MS = 0.01, 3_600_000.0
_PLACES = 256
_COLUMNS = 9
_PARTICULAR = 1024
_SPEED = slice(2, 4)


class Line(Struct, frozen=True, array_like=True):
    """What is kept of one arm; `tried` are failures and tries beside the prior's."""

    arm: str
    begin: Pace
    clock: Clock
    scatter: Scatter
    own: list[float]
    doubt: list[float]
    tried: list[float]


class Saved(Struct, frozen=True, array_like=True):
    """What a snapshot holds; the first line is anybody's, `at_ms` the time of the last attempt."""

    lines: list[Line]
    common: list[list[float]]
    at_ms: int


class Habits:
    """What is known of how arms answer.

    Memory is bounded: besides the arms that `know` was told of, a thousand are kept that are like
    one of them in more particulars (an effort, a choice of providers).

    Row 0 stands for any arm that is not known: it has what all arms showed, and nothing of its own.

    Args:
        tasks: how many tasks there are.
    """

    def __init__(self, tasks: int) -> None:
        self._rows: dict[str, int] = {"": _ANYBODY}
        self._begins = [STRANGER]
        self._clocks = [Clock.of(STRANGER)]
        self._lengths = Lengths(tasks)
        self._tried = np.zeros((1, 2))
        self._at_ms = 0
        self._particular = 0
        self._places: dict[tuple[str, ...], _Place] = {}
        self._make_ready()

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms that are known."""
        return tuple(self._rows)[1:]

    def seen(self, arm: str) -> int:
        """Return how many whole answers of an arm were timed."""
        row = self._rows.get(arm)
        return 0 if row is None else self._clocks[row].seen_whole

    def know(self, paces: Mapping[str, Pace]) -> None:
        """Get to know arms; what is believed of one that was never seen is believed anew."""
        for arm, pace in paces.items():
            row = self._rows.get(arm)
            if row is not None and not self._clocks[row].seen_whole:
                self._begins[row] = pace
        self._add({arm: pace for arm, pace in paces.items() if arm not in self._rows})

    def answered(self, answer: Answer) -> None:
        """Take in one answer of an arm that is known; others teach nothing."""
        if answer.tokens <= 0 or not _LEAST_MS < answer.total_ms < _LONGEST_MS:
            return
        row = self._met(answer.arm)
        if row is None:
            return
        new = not self._clocks[row].seen_whole
        if new:
            self._start(row, answer.arm)
        if answer.expected > 0:
            ratio = answer.tokens / answer.expected
            self._lengths.learn(row, answer.tasks, ratio, cut=answer.cut)
        clock, anybody = self._clocks[row], self._clocks[_ANYBODY]
        ahead = _ahead(self._begins[row], STRANGER)
        if answer.first_ms is not None and answer.first_ms > _LEAST_MS:
            clock.begun(answer.first_ms)
            anybody.begun(answer.first_ms, ahead)
        clock.ended(answer.total_ms, answer.tokens)
        anybody.ended(answer.total_ms, answer.tokens, ahead)
        self._prepare(row)
        self._prepare(_ANYBODY)
        if new:
            self._find_kin(model_of(answer.arm))
            self._find_unseen()
        else:
            self._follow()

    def tried(self, arm: str, at_ms: int, *, failed: bool) -> None:
        """Count an attempt at `at_ms`, milliseconds since 1970; what is old counts less by then."""
        row = self._met(arm)
        if row is None:
            return
        if at_ms > self._at_ms:
            # Everybody's at once: who is not asked any more must get a second chance, too.
            self._tried *= 0.5 ** ((at_ms - self._at_ms) / HALF_LIFE_MS)
            self._at_ms = at_ms
        self._tried[row] += (float(failed), 1.0)

    def forecast(self, arms: Sequence[str], asked: Asked) -> Forecast:
        """Return what to expect of `arms`; who is not known is as others are on average."""
        rows, tasks, lengths = self._place(arms), asked.tasks, self._lengths
        scatter, mean, first, token, fixed, cross, own, begun, ended = self._ready[rows].T
        design = np.empty(1 + len(tasks))
        design[0], design[1:] = 1.0, tasks
        usual = np.exp(np.minimum(lengths.level[rows] @ design, _FARTHEST))
        doubt = lengths.unsure[rows] @ (design * design)
        if asked.stream:
            time, known, variance = np.log(first), fixed, begun
        else:
            whole = first + token * usual * asked.tokens
            time, early = np.log(whole), first / whole
            later = 1.0 - early
            weight = later * later
            known = early * (early * fixed + later * cross) + weight * (own + doubt)
            variance = known + weight * scatter + ended
        fails, tries = self._tried[rows].T
        return Forecast(
            usual * mean,
            doubt,
            time,
            known,
            np.sqrt(variance),
            fails + FAILS,
            tries + TRIES,
        )

    def saved(self) -> Saved:
        """Return the whole state; the same state gives the same bytes."""
        common, own, doubt = (array.tolist() for array in self._lengths.saved())
        facts = (
            self._rows,
            self._begins,
            self._clocks,
            self._lengths.scatters,
            own,
            doubt,
            self._tried.tolist(),
        )
        return Saved([Line(*line) for line in zip(*facts, strict=True)], common, self._at_ms)

    @classmethod
    def of(cls, saved: Saved) -> "Habits":
        """Return the habits that were saved."""
        habits, lines = cls(len(saved.common[0]) - 1), saved.lines
        own = np.array([line.own for line in lines])
        doubt = np.array([line.doubt for line in lines])
        scatters = [line.scatter for line in lines]
        habits._rows = {line.arm: row for row, line in enumerate(lines)}
        habits._begins = [line.begin for line in lines]
        # Clocks go on; what was saved may be restored once more.
        habits._clocks = [replace(line.clock) for line in lines]
        habits._lengths = Lengths.of((np.array(saved.common), own, doubt), scatters)
        habits._tried = np.array([line.tried for line in lines])
        habits._at_ms = saved.at_ms
        habits._particular = sum(is_particular(line.arm) for line in lines)
        habits._make_ready()
        return habits

    def _place(self, arms: Sequence[str]) -> _Place:
        """Return where `arms` are: mostly the same ones are asked for, in one run of rows."""
        named = tuple(arms)
        place = self._places.get(named)
        if place is None:
            rows = [self._nearest(arm) for arm in named]
            place = np.array(rows, dtype=np.intp)
            if rows and rows == list(range(rows[0], rows[0] + len(rows))):
                place = slice(rows[0], rows[0] + len(rows))
            if len(self._places) >= _PLACES:
                self._places.clear()
            self._places[named] = place
        return place

    def _add(self, paces: Mapping[str, Pace]) -> None:
        for arm, pace in paces.items():
            self._rows[arm] = len(self._begins)
            self._begins.append(pace)
            self._clocks.append(Clock.of(pace))
        self._particular += sum(map(is_particular, paces))
        self._lengths.add(len(paces))
        self._tried = np.concatenate([self._tried, np.zeros((len(paces), 2))])
        self._make_room(list(paces))

    def _nearest(self, arm: str) -> int:
        names = (arm, *relatives(arm))
        return next((self._rows[name] for name in names if name in self._rows), _ANYBODY)

    def _met(self, arm: str) -> int | None:
        """Return an arm's row; one that is like a known one in more particulars gets its own."""
        if arm not in self._rows and self._particular < _PARTICULAR:
            like = self._nearest(arm)
            if like != _ANYBODY:
                self._add({arm: self._begins[like]})
        return self._rows.get(arm)

    def _make_ready(self) -> None:
        self._ready = np.zeros((0, _COLUMNS))
        self._shown = np.zeros((0, _COLUMNS))
        self._modes: dict[str, list[str]] = {}
        self._kin: list[int] = []
        self._make_room(list(self._rows))

    def _make_room(self, arms: Sequence[str]) -> None:
        """Make the last rows ready, those of `arms`; there may be thousands of others."""
        room = np.zeros((len(arms), _COLUMNS))
        self._ready = np.concatenate([self._ready, room])
        self._shown = np.concatenate([self._shown, room])
        self._kin += [_ANYBODY] * len(arms)
        for arm in arms:
            self._modes.setdefault(model_of(arm), []).append(arm)
            self._prepare(self._rows[arm])
            self._kin[self._rows[arm]] = self._kin_of(arm)
        self._places.clear()
        self._find_unseen()

    def _prepare(self, row: int) -> None:
        """Put what a forecast needs of an arm where it is found at once."""
        clock, lengths = self._clocks[row], self._lengths.scatters[row].variance
        mean, first, token = math.exp(0.5 * lengths), math.exp(clock.first), math.exp(clock.token)
        self._ready[row] = (
            lengths,
            mean,
            first,
            token,
            clock.doubt_first,
            2.0 * clock.both,
            clock.doubt_token,
            clock.doubt_first + clock.scatter_first,
            clock.scatter_whole,
        )
        # The same for those who go by what this arm showed: they are less sure.
        begun, ended = DOUBT + clock.scatter_first, clock.scatter_whole
        self._shown[row] = (lengths, mean, first, token, DOUBT, 0.0, DOUBT, begun, ended)

    def _find_kin(self, model: str) -> None:
        """Find anew whom a model's modes go by: one of them was seen for the first time."""
        for arm in self._modes[model]:
            self._kin[self._rows[arm]] = self._kin_of(arm)

    def _find_unseen(self) -> None:
        """Find who was never seen: they go by another mode of their model, or by anybody."""
        unseen = [row for row, clock in enumerate(self._clocks) if row and not clock.seen_whole]
        self._unseen = np.array(unseen, np.intp)
        self._followed = np.array(self._kin, np.intp)[self._unseen]
        paces = np.log([(one.first_ms, one.token_ms) for one in self._begins])
        self._ahead = np.ones((len(unseen), _COLUMNS))
        self._ahead[:, _SPEED] = np.exp(paces[self._unseen] - paces[self._followed])
        self._follow()

    def _follow(self) -> None:
        """Expect of the arms that were never seen what those showed that they go by."""
        if len(self._unseen):
            self._ready[self._unseen] = self._shown[self._followed] * self._ahead

    def _kin_of(self, arm: str) -> int:
        others = (*relatives(arm), *(arm_of(model_of(arm), call) for call in CALLS))
        rows = (self._rows.get(name, _ANYBODY) for name in others)
        return next((row for row in rows if row and self._clocks[row].seen_whole), _ANYBODY)

    def _start(self, row: int, arm: str) -> None:
        """Let an arm that is seen for the first time begin with what was expected of it."""
        known = self._kin_of(arm)
        ahead = _ahead(self._begins[row], self._begins[known])
        self._clocks[row].follow(self._clocks[known], ahead)
        self._lengths.start(row, known)


def newer(mine: Saved, theirs: Saved) -> Saved:
    """Return `mine`, with what `theirs` holds of the arms of which it has seen more answers."""
    if len(mine.common[0]) != len(theirs.common[0]):
        return mine
    known = {line.arm: line for line in theirs.lines}
    lines = []
    for line in mine.lines:
        other = known.pop(line.arm, line)
        lines.append(other if other.clock.seen_whole > line.clock.seen_whole else line)
    common = theirs.common if lines[_ANYBODY] is not mine.lines[_ANYBODY] else mine.common
    return Saved([*lines, *known.values()], common, max(mine.at_ms, theirs.at_ms))


def _ahead(pace: Pace, other: Pace) -> tuple[float, float]:
    """Return by how much `pace` is slower than `other`, as logarithms."""
    return math.log(pace.first_ms / other.first_ms), math.log(pace.token_ms / other.token_ms)
