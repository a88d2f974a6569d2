"""What follows an answer that Sophia's own choice gave: who listens to it, and who judges it."""

from sophia.serving.decide import Decision
from sophia.serving.ear import Ear, Ending
from sophia.serving.judge import Case, Judge
from sophia.serving.request import Request
from sophia.serving.tab import Payer

_MOST_BYTES = 256 * 1024
"""Of an answer, with the frame of its chunks; nobody judges a longer one."""


class Aftermath:
    """Sees to the answers that were chosen by lot or by what was learned; call it for each."""

    def __init__(self, judge: Judge | None = None) -> None:
        self._judge = judge

    def __call__(
        self, request: Request, decision: Decision, payer: Payer, looked_at: bool
    ) -> Ear | None:
        """Return who listens to the answer that begins; None when nobody does."""
        evidence = decision.plan.evidence
        if evidence is None or request.endpoint != "chat/completions":
            return None
        judged = evidence.asked and self._judge is not None

        def told(ear: Ear, ending: Ending) -> None:
            wanted = judged and ear.whole and ending.complete and not ending.marked
            if self._judge is not None and wanted:
                self._judge.take(Case(request, decision, payer, ending.model, ear.chunks))

        return Ear(told, _MOST_BYTES) if judged else None
