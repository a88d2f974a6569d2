"""The performance of arms: length, latency and failure rate, updated by each answer.

`lengths` and `latency` have the mathematics of the first two. Failures are a Beta posterior whose
counts halve every hour. Every update takes the same time, whatever came before, and the numbers for
a forecast are kept in arrays.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from msgspec import Struct
from msgspec.structs import replace
from numpy.typing import NDArray

from sophia.routing.bandit.arms import (
    CALL_KINDS,
    format_arm,
    is_arm_variant,
    list_less_specific_arms,
    strip_call_mode,
)
from sophia.routing.bandit.performance.forecast import AnswerMeasurement, Forecast
from sophia.routing.bandit.performance.latency import (
    DEFAULT_SPEED,
    PRIOR_VARIANCE,
    LatencyModel,
    SpeedPrior,
)
from sophia.routing.bandit.performance.lengths import LengthModel, ResidualVariance
from sophia.routing.bandit.policy import Vector

_RowIndex = slice | NDArray[np.intp]

FAILURE_HALF_LIFE_MS = 3_600_000.0
PRIOR_FAILURES, PRIOR_ATTEMPTS = 0.2, 10.0
"""Prior of every arm: two failures in a hundred, counting as ten attempts."""

_DEFAULT_ROW = 0
_MAX_LOG_LENGTH_RATIO = 4.0
_MIN_DURATION_MS, _MAX_DURATION_MS = 0.01, 3_600_000.0
_MAX_CACHED_INDICES = 256
_FORECAST_COLUMNS = 9
_MAX_VARIANTS = 1024
_SPEED_COLUMNS = slice(2, 4)


class ArmPerformanceState(Struct, frozen=True, array_like=True, kw_only=True):
    """The state of one arm; `attempt_counts` are failures and attempts without the prior's."""

    arm: str
    speed_prior: SpeedPrior
    latency: LatencyModel
    length_residual: ResidualVariance
    length_terms: list[float]
    length_variances: list[float]
    attempt_counts: list[float]


class PerformanceState(Struct, frozen=True, array_like=True):
    """The content of a snapshot; the first arm stands for unknown ones."""

    arms: list[ArmPerformanceState]
    shared_length_terms: list[list[float]]
    last_attempt_ms: int


class PerformanceModel:
    """Beliefs of the performance of arms, for requests with `tasks` task probabilities.

    Memory is bounded: besides the arms of `set_speed_priors`, a thousand of their variants (an
    effort, a choice of providers) get a row. Row 0 stands for unknown arms: it has the terms common
    to all arms, and none of its own.
    """

    def __init__(self, tasks: int) -> None:
        self._rows: dict[str, int] = {"": _DEFAULT_ROW}
        self._speed_priors = [DEFAULT_SPEED]
        self._latencies = [LatencyModel.from_prior(DEFAULT_SPEED)]
        self._lengths = LengthModel(tasks)
        self._attempt_counts = np.zeros((1, 2))
        self._last_attempt_ms = 0
        self._variant_count = 0
        self._row_indices: dict[tuple[str, ...], _RowIndex] = {}
        self._rebuild_forecast_rows()

    def count_timed(self, arm: str) -> int:
        """Return the number of timed whole answers of an arm."""
        row = self._rows.get(arm)
        return 0 if row is None else self._latencies[row].total_count

    def needs_answers(self, arm: str, enough: int) -> bool:
        """Return whether fewer than `enough` whole answers of an arm were timed.

        Those of an arm that is not known are never needed.
        """
        row = self._rows.get(arm)
        if row is None:
            return is_arm_variant(arm) and self._find_row(arm) != _DEFAULT_ROW
        return self._latencies[row].total_count < enough

    def set_speed_priors(self, priors: Mapping[str, SpeedPrior]) -> None:
        """Add arms, and replace the priors of arms without answers."""
        for arm, speed in priors.items():
            row = self._rows.get(arm)
            if row is not None and not self._latencies[row].total_count:
                self._speed_priors[row] = speed
        self._add_arms({arm: speed for arm, speed in priors.items() if arm not in self._rows})

    def update_answer(self, answer: AnswerMeasurement) -> None:
        """Update by one answer; answers of unknown arms are ignored."""
        is_timed = _MIN_DURATION_MS < answer.total_ms < _MAX_DURATION_MS
        row = (
            self._find_or_add_row(answer.arm) if answer.completion_tokens > 0 and is_timed else None
        )
        if row is None:
            return
        is_first = not self._latencies[row].total_count
        if is_first:
            # An arm starts from the forecast it had until then.
            reference = self._find_reference(answer.arm)
            slower = _log_speed_ratio(self._speed_priors[row], self._speed_priors[reference])
            self._latencies[row].copy_from(self._latencies[reference], slower)
            self._lengths.copy_residual(row, reference)
        if answer.expected_tokens > 0:
            ratio = answer.completion_tokens / answer.expected_tokens
            self._lengths.update(row, answer.task_probabilities, ratio, truncated=answer.truncated)
        latency, default = self._latencies[row], self._latencies[_DEFAULT_ROW]
        slower = _log_speed_ratio(self._speed_priors[row], DEFAULT_SPEED)
        if answer.first_content_ms is not None and answer.first_content_ms > _MIN_DURATION_MS:
            latency.update_first(answer.first_content_ms)
            default.update_first(answer.first_content_ms, slower)
        latency.update_total(answer.total_ms, answer.completion_tokens)
        default.update_total(answer.total_ms, answer.completion_tokens, slower)
        self._update_forecast_row(row)
        self._update_forecast_row(_DEFAULT_ROW)
        if is_first:
            for arm in self._arms_by_model[strip_call_mode(answer.arm)]:
                self._reference_of_row[self._rows[arm]] = self._find_reference(arm)
            self._update_untimed()
        else:
            self._copy_references()

    def update_attempt(self, arm: str, at_ms: int, *, failed: bool) -> None:
        """Count an attempt at `at_ms`, milliseconds since 1970; older counts decay until then."""
        row = self._find_or_add_row(arm)
        if row is None:
            return
        if at_ms > self._last_attempt_ms:
            # All arms' counts decay, so that an arm that gets no requests recovers, too.
            self._attempt_counts *= 0.5 ** ((at_ms - self._last_attempt_ms) / FAILURE_HALF_LIFE_MS)
            self._last_attempt_ms = at_ms
        self._attempt_counts[row] += (float(failed), 1.0)

    def forecast(
        self, arms: Sequence[str], tasks: Vector, expected_tokens: Vector, *, stream: bool = False
    ) -> Forecast:
        """Return the forecast of `arms`; unknown ones get the average of the others.

        Args:
            arms: A arms, in any order.
            tasks: shape (T,), the request's posterior over the tasks.
            expected_tokens: shape (A,), completion tokens expected of any arm, within each limit.
            stream: the time of a stream is that to its first content, of another answer to its end.
        """
        rows, lengths = self._index_rows(arms), self._lengths
        columns = self._forecast_rows[rows].T
        length_residual, length_mean, first, token = columns[:4]
        first_variance, covariance, token_variance, stream_variance, total_residual = columns[4:]
        design = np.empty(1 + len(tasks))
        design[0], design[1:] = 1.0, tasks
        ratio = np.exp(np.minimum(lengths.terms[rows] @ design, _MAX_LOG_LENGTH_RATIO))
        length_variance = lengths.variances[rows] @ (design * design)
        if stream:
            log_time, time_variance, variance = np.log(first), first_variance, stream_variance
        else:
            total = first + token * ratio * expected_tokens
            log_time, early = np.log(total), first / total
            later = 1.0 - early
            weight = later * later
            time_variance = early * (early * first_variance + later * covariance) + weight * (
                token_variance + length_variance
            )
            variance = time_variance + weight * length_residual + total_residual
        failures, attempts = self._attempt_counts[rows].T
        return Forecast(
            length_ratio=ratio * length_mean,
            log_length_variance=length_variance,
            log_time=log_time,
            log_time_variance=time_variance,
            log_time_sd=np.sqrt(variance),
            failures=failures + PRIOR_FAILURES,
            attempts=attempts + PRIOR_ATTEMPTS,
        )

    def dump_state(self) -> PerformanceState:
        """Return the whole state; the same state gives the same bytes."""
        common, terms, variances = (array.tolist() for array in self._lengths.dump_state())
        attempts = self._attempt_counts.tolist()
        arms = [
            ArmPerformanceState(
                arm=arm,
                speed_prior=self._speed_priors[row],
                latency=self._latencies[row],
                length_residual=self._lengths.residuals[row],
                length_terms=terms[row],
                length_variances=variances[row],
                attempt_counts=attempts[row],
            )
            for arm, row in self._rows.items()
        ]
        return PerformanceState(arms, common, self._last_attempt_ms)

    @classmethod
    def from_state(cls, state: PerformanceState) -> "PerformanceModel":
        """Return the model that `dump_state` was taken of."""
        model, arms = cls(len(state.shared_length_terms[0]) - 1), state.arms
        model._rows = {arm.arm: row for row, arm in enumerate(arms)}
        model._speed_priors = [arm.speed_prior for arm in arms]
        # Latencies are updated in place, and a state may be restored more than once.
        model._latencies = [replace(arm.latency) for arm in arms]
        terms = np.array([arm.length_terms for arm in arms])
        variances = np.array([arm.length_variances for arm in arms])
        model._lengths = LengthModel.from_state(
            (np.array(state.shared_length_terms), terms, variances),
            [arm.length_residual for arm in arms],
        )
        model._attempt_counts = np.array([arm.attempt_counts for arm in arms])
        model._last_attempt_ms = state.last_attempt_ms
        model._variant_count = sum(is_arm_variant(arm.arm) for arm in arms)
        model._rebuild_forecast_rows()
        return model

    def _index_rows(self, arms: Sequence[str]) -> _RowIndex:
        """Return the rows of `arms`, cached, since mostly the same arms are asked for."""
        names = tuple(arms)
        index = self._row_indices.get(names)
        if index is None:
            rows = [self._find_row(arm) for arm in names]
            index = np.array(rows, dtype=np.intp)
            if rows and rows == list(range(rows[0], rows[0] + len(rows))):
                index = slice(rows[0], rows[0] + len(rows))
            if len(self._row_indices) >= _MAX_CACHED_INDICES:
                self._row_indices.clear()
            self._row_indices[names] = index
        return index

    def _add_arms(self, priors: Mapping[str, SpeedPrior]) -> None:
        for arm, speed in priors.items():
            self._rows[arm] = len(self._speed_priors)
            self._speed_priors.append(speed)
            self._latencies.append(LatencyModel.from_prior(speed))
        self._variant_count += sum(map(is_arm_variant, priors))
        self._lengths.add_rows(len(priors))
        self._attempt_counts = np.concatenate([self._attempt_counts, np.zeros((len(priors), 2))])
        self._append_forecast_rows(list(priors))

    def _find_row(self, arm: str) -> int:
        names = (arm, *list_less_specific_arms(arm))
        return next((self._rows[name] for name in names if name in self._rows), _DEFAULT_ROW)

    def _find_or_add_row(self, arm: str) -> int | None:
        """Return an arm's row; a variant of a known arm gets its own."""
        if arm not in self._rows and self._variant_count < _MAX_VARIANTS:
            relative = self._find_row(arm)
            if relative != _DEFAULT_ROW:
                self._add_arms({arm: self._speed_priors[relative]})
        return self._rows.get(arm)

    def _rebuild_forecast_rows(self) -> None:
        self._forecast_rows = np.zeros((0, _FORECAST_COLUMNS))
        self._reference_rows = np.zeros((0, _FORECAST_COLUMNS))
        self._arms_by_model: dict[str, list[str]] = {}
        self._reference_of_row: list[int] = []
        self._append_forecast_rows(list(self._rows))

    def _append_forecast_rows(self, arms: Sequence[str]) -> None:
        """Fill in the last rows, those of `arms`; there may be thousands of others."""
        empty = np.zeros((len(arms), _FORECAST_COLUMNS))
        self._forecast_rows = np.concatenate([self._forecast_rows, empty])
        self._reference_rows = np.concatenate([self._reference_rows, empty])
        self._reference_of_row += [_DEFAULT_ROW] * len(arms)
        for arm in arms:
            self._arms_by_model.setdefault(strip_call_mode(arm), []).append(arm)
            self._update_forecast_row(self._rows[arm])
            self._reference_of_row[self._rows[arm]] = self._find_reference(arm)
        self._row_indices.clear()
        self._update_untimed()

    def _update_forecast_row(self, row: int) -> None:
        """Store the numbers that a forecast needs of an arm."""
        latency, residual = self._latencies[row], self._lengths.residuals[row].variance
        first_residual = latency.first_residual_variance
        means = (
            residual,
            math.exp(0.5 * residual),
            math.exp(latency.log_first_ms),
            math.exp(latency.log_token_ms),
        )
        self._forecast_rows[row] = (
            *means,
            *(latency.first_variance, 2.0 * latency.covariance, latency.token_variance),
            latency.first_variance + first_residual,
            latency.total_residual_variance,
        )
        # For the arms that take this one as their reference, which are less certain.
        self._reference_rows[row] = (
            *means,
            *(PRIOR_VARIANCE, 0.0, PRIOR_VARIANCE),
            PRIOR_VARIANCE + first_residual,
            latency.total_residual_variance,
        )

    def _update_untimed(self) -> None:
        """List the arms without answers, and how much slower than their references they are."""
        untimed = [row for row, latency in enumerate(self._latencies) if not latency.total_count]
        self._untimed_rows = np.array([row for row in untimed if row != _DEFAULT_ROW], np.intp)
        self._untimed_references = np.array(self._reference_of_row, np.intp)[self._untimed_rows]
        speeds = np.log([(speed.first_content_ms, speed.token_ms) for speed in self._speed_priors])
        self._speed_ratios = np.ones((len(self._untimed_rows), _FORECAST_COLUMNS))
        self._speed_ratios[:, _SPEED_COLUMNS] = np.exp(
            speeds[self._untimed_rows] - speeds[self._untimed_references]
        )
        self._copy_references()

    def _copy_references(self) -> None:
        """Copy the numbers of the references to the arms without answers."""
        if len(self._untimed_rows):
            self._forecast_rows[self._untimed_rows] = (
                self._reference_rows[self._untimed_references] * self._speed_ratios
            )

    def _find_reference(self, arm: str) -> int:
        """Return the row of a similar arm of the same model with answers, else row 0."""
        model = strip_call_mode(arm)
        others = (*list_less_specific_arms(arm), *(format_arm(model, kind) for kind in CALL_KINDS))
        rows = (self._rows.get(name, _DEFAULT_ROW) for name in others)
        return next((row for row in rows if row and self._latencies[row].total_count), _DEFAULT_ROW)


def merge_performance_states(base: PerformanceState, other: PerformanceState) -> PerformanceState:
    """Return `base`, with the arms of `other` that have more answers there."""
    if len(base.shared_length_terms[0]) != len(other.shared_length_terms[0]):
        return base
    others = {arm.arm: arm for arm in other.arms}
    arms = [
        max(arm, others.pop(arm.arm, arm), key=lambda state: state.latency.total_count)
        for arm in base.arms
    ]
    newer = other if arms[_DEFAULT_ROW] is not base.arms[_DEFAULT_ROW] else base
    last_attempt_ms = max(base.last_attempt_ms, other.last_attempt_ms)
    return PerformanceState([*arms, *others.values()], newer.shared_length_terms, last_attempt_ms)


def _log_speed_ratio(speed: SpeedPrior, other: SpeedPrior) -> tuple[float, float]:
    """Return how much slower `speed` is than `other`, as logarithms."""
    return math.log(speed.first_content_ms / other.first_content_ms), math.log(
        speed.token_ms / other.token_ms
    )
