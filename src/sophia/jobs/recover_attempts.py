"""Recovery at start: attempts that an earlier process left open may have been sent."""

import logging
from collections.abc import Mapping

from sophia.core.ids import is_command_attempt
from sophia.core.ports import Upstream
from sophia.core.rows import AttemptIntent, AttemptOutcome, OpenAttempt, UnsettledAttempt
from sophia.serving.attempts.reservation import Ledger

log = logging.getLogger("sophia.ledger")

_COMMAND_MS = 3_600_000
"""Time that an attempt of a command, which may still run beside the server, stays open."""


async def recover_attempts(ledger: Ledger, upstreams: Mapping[str, Upstream]) -> None:
    """Close the attempts that are open at their probable cost, and hold all those of unknown cost.

    Only the server calls it, at its start, when no other process serves from the data folder.
    Their costs are asked of the upstreams that can tell (`jobs.correct_costs`).
    """
    now_ms = int(ledger.clock.wall() * 1000)
    for unknown in await ledger.store.unknown_attempts():
        upstream, outcome = upstreams.get(unknown.upstream), unknown.outcome
        can_ask = upstream is not None and upstream.can_fetch_usage and outcome.generation_id
        # The upstream was not asked while no process ran.
        ledger.unknown.add(unknown, outcome.cost_nano, now_ms if can_ask else outcome.at_ms)
    closed = 0
    for attempt in await ledger.store.open_attempts():
        intent = attempt.intent
        if not (is_command_attempt(intent.attempt_id) and now_ms - intent.at_ms < _COMMAND_MS):
            _close(ledger, attempt, now_ms)
            closed += 1
    if closed:
        log.info("closed %d attempts that the last process left open", closed)


def _close(ledger: Ledger, attempt: OpenAttempt, now_ms: int) -> None:
    intent = attempt.intent
    probable = _probable_cost(intent)
    outcome = AttemptOutcome(
        attempt_id=intent.attempt_id,
        key_id=intent.key_id,
        window=intent.window,
        model=intent.model,
        state="unknown",
        cost_nano=probable,
        cost_source="estimated",
        estimate_nano=probable,
        prompt_tokens=0,
        completion_tokens=0,
        cached_tokens=0,
        reasoning_tokens=0,
        finish_reason=None,
        failure="crash",
        generation_id=attempt.generation_id,
        provider=None,
        first_content_ms=None,
        total_ms=0.0,
        at_ms=now_ms,
    )
    ledger.coordinator.settle(intent.key_id, intent.window, intent.held_nano - probable, 0)
    ledger.store.settle(outcome)
    ledger.unknown.add(UnsettledAttempt(outcome, intent.upstream), probable, now_ms)


def _probable_cost(intent: AttemptIntent) -> int:
    expected = intent.expected_nano
    return intent.held_nano if expected is None else min(expected, intent.held_nano)
