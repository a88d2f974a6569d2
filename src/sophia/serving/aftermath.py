"""What follows an answer that Sophia's own choice gave: who listens to it, and who judges it."""

from sophia.serving.decide import Decision
from sophia.serving.ear import Ear, Ending
from sophia.serving.judge import Case, Judge
from sophia.serving.request import Request
from sophia.serving.signs import Signs
from sophia.serving.tab import Payer

_MOST_BYTES = 256 * 1024
"""Of an answer, with the frame of its chunks; nobody looks at a longer one."""


class Aftermath:
    """Call it for every answer that begins.

    Args:
        judge: judges those on which the lot fell.
        signs: notices what callers do with those that no cascade looked at.
    """

    def __init__(self, judge: Judge | None = None, signs: Signs | None = None) -> None:
        self._judge = judge
        self._signs = signs

    def __call__(
        self, request: Request, decision: Decision, payer: Payer, looked_at: bool
    ) -> Ear | None:
        """Return who listens to the answer; None when nobody does."""
        evidence = decision.plan.evidence
        if evidence is None or request.endpoint != "chat/completions":
            return None
        judge = self._judge if evidence.asked else None
        signs = None if looked_at else self._signs
        turn = None if signs is None else signs.asked(request)
        if judge is None and signs is None:
            return None

        def told(ear: Ear, ending: Ending) -> None:
            if signs is not None:
                signs.over(request, turn, ear, ending)
            if judge is not None and ear.whole and ending.complete and not ending.marked:
                judge.take(Case(request, decision, payer, ending.model, ear.chunks))

        wanted = judge is not None or request.prompt.tools
        return Ear(told, _MOST_BYTES if wanted else 0)
