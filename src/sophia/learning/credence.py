"""How far a verdict is believed: what its channel is worth here, and whom its judge favours."""

from collections.abc import Mapping

from msgspec import Struct

from sophia.core.rows import Feedback
from sophia.learning.channels import CHANNELS, JUDGE, Channel, Vote
from sophia.learning.judging import Favour, corrected

Favours = Mapping[tuple[str, str], Favour]


class Known(Struct, frozen=True):
    """How much better a judge scores a family than it deserves."""

    judge: str
    family: str
    favour: Favour


class Credence(Struct, frozen=True):
    """What was learned of channels and judges from decisions that several spoke of.

    `compared` is how many decisions each channel was compared with others on. A channel that is not
    among `channels` is worth what everybody believes of it; a relative that is not among `favours`
    is not heard.
    """

    channels: dict[str, Channel] = {}
    favours: tuple[Known, ...] = ()
    compared: dict[str, int] = {}

    def known(self) -> dict[str, Channel]:
        """Return all channels as they are believed to be."""
        return {**CHANNELS, **self.channels}

    def favour(self) -> Favours:
        """Return what is known of each judge's favour, by judge and family."""
        return {(one.judge, one.family): one.favour for one in self.favours}


NOTHING = Credence()


def vote_of(verdict: Feedback, model: str, credence: Credence) -> Vote | None:
    """Return what a verdict on an answer of `model` is worth, None when it is not to be heard.

    A judge is named by its verdict's label. One of the model's own family is heard only as far as
    its favour for it is known, and without it.
    """
    score = verdict.score or 0.0
    if verdict.channel != JUDGE or not verdict.label:
        return Vote(verdict.channel, score)
    found = corrected(score, verdict.label, model, credence.favour())
    return None if found is None else Vote(JUDGE, found.score, found.strength)
