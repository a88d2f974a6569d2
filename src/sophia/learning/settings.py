"""When the learned policy serves, how freely it explores, and what makes it step back."""

from msgspec import Struct

from sophia.learning.promotion import GATE, Gate
from sophia.routing.drift import Alertness
from sophia.routing.policies.choose import Exploration
from sophia.routing.trial import Terms


class Settings(Struct, frozen=True):
    """When the learned policy serves, and how freely.

    Attributes:
        after: lessons before it serves for the first time.
        again: lessons before it may serve once more after it stepped back.
        exploration: of its choices.
        terms: of a new arm's trial.
        alertness: to arms that become worse.
        gate: holds the share that stays with the heuristic, and what makes it step back.
        challenge: the same of the learned policy's own challengers.
    """

    after: int = 100
    again: int = 500
    exploration: Exploration = Exploration("thompson", boldness=0.25, floor=0.01, extra=1.0)
    terms: Terms = Terms()
    alertness: Alertness = Alertness()
    gate: Gate = GATE
    challenge: Gate = GATE
