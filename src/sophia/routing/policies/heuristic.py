"""The plan's table as a policy: it rates the arm of the role it would choose above the others."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from sophia.routing.heuristic import choose_role
from sophia.routing.nouns import Features
from sophia.routing.policies.policy import Ratings, Sight

LEAD = 0.05


class Heuristic:
    """Rates by a table of qualities, with the arm of the chosen role `LEAD` above the best of them.

    It does not learn, so it is never uncertain.

    Args:
        read: turns a Sight back into the features that the table looks at.
        roles: the arm of each role.
        qualities: the quality of each arm, 0 to 1.
    """

    name = "heuristic"

    def __init__(
        self,
        read: Callable[[Sight], Features],
        roles: Mapping[str, str],
        qualities: Mapping[str, float],
    ) -> None:
        self._read = read
        self._roles = dict(roles)
        self._qualities = dict(qualities)
        known = self._qualities.values()
        self._usual = sum(known) / len(known) if known else 0.5

    def rate(self, sight: Sight, arms: Sequence[str]) -> Ratings | None:
        """Return the qualities of `arms`, or None when the chosen role's arm is not among them."""
        role, _ = choose_role(self._read(sight))
        chosen = self._roles.get(role)
        if chosen is None or chosen not in arms:
            return None
        quality = np.array([self._qualities.get(arm, self._usual) for arm in arms])
        quality = np.minimum(quality, 1.0 - LEAD)
        quality[list(arms).index(chosen)] = quality.max() + LEAD
        return Ratings(quality, np.zeros(len(arms)))
