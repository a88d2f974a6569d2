"""Observers of answers that Sophia's own choice gave: implicit feedback and judging."""

from sophia.serving.attempts.observer import AnswerEnd, AnswerObserver
from sophia.serving.attempts.reservation import BudgetScope
from sophia.serving.feedback.implicit import ImplicitFeedbackDetector
from sophia.serving.judging.judge import Judge, JudgeJob
from sophia.serving.request import Decision, Request

_MAX_BYTES = 256 * 1024
"""Size of an answer's chunks up to which it is judged."""


class AnswerObserverFactory:
    """Factory of the observer of each answer."""

    def __init__(
        self, judge: Judge | None, implicit_feedback: ImplicitFeedbackDetector | None
    ) -> None:
        self._judge = judge
        self._implicit_feedback = implicit_feedback

    def __call__(
        self, request: Request, decision: Decision, scope: BudgetScope, checked: bool
    ) -> AnswerObserver | None:
        """Return the observer of an answer; None when nothing observes it."""
        trace = decision.plan.trace
        if trace is None or request.endpoint != "chat/completions":
            return None
        judge = self._judge if trace.judge_sampled else None
        implicit = None if checked else self._implicit_feedback
        if judge is None and implicit is None:
            return None
        fingerprint = None if implicit is None else implicit.observe_request(request)

        def on_end(observer: AnswerObserver, end: AnswerEnd) -> None:
            if implicit is not None:
                implicit.observe_end(request, fingerprint, observer, end)
            judgeable = observer.is_complete and end.complete and not end.rubric_scored
            if judge is not None and judgeable:
                judge.submit(
                    JudgeJob(
                        request=request,
                        decision=decision,
                        scope=scope,
                        model=end.model,
                        chunks=observer.chunks,
                    )
                )

        keeps_chunks = judge is not None or request.prompt.tools
        return AnswerObserver(on_end, _MAX_BYTES if keeps_chunks else 0)
