"""How much anybody's feedback may move the routing, with bounds that hold for any input.

Three walls. A key's weight on an arm grows ever slower and never passes its cap in a window, and
so does a tenant's. What all tenants share is a trimmed mean with a seat per tenant, however much
each of them says, beside seats that keep to the prior: so many liars as are trimmed on one side
cannot carry it out of the range of the others, and one of them moves it by `reach` at the most.
"""

import math
from collections.abc import Mapping, Sequence

from msgspec import Struct

DAY_MS = 86_400_000

Purse = tuple[int, str, str, str]
"""Whose weight is counted: the window, the tenant, the key (empty: all of them), the arm."""


class Caps(Struct, frozen=True):
    """Limits on influence; weights count one for a plain outcome.

    Attributes:
        key: the most that a key's outcomes on an arm weigh in a window.
        tenant: the same for a tenant on the shared level, over all its keys.
        window_ms: the length of a window; windows begin at its multiples.
        ghosts: seats on the shared level that keep to the prior.
        trimmed: share of the seats that is cut off at each end.
        prior: how many outcomes a tenant's own prior weighs.
    """

    key: float = 50.0
    tenant: float = 100.0
    window_ms: int = DAY_MS
    ghosts: int = 4
    trimmed: float = 0.25
    prior: float = 10.0


CAPS = Caps()


class Offer(Struct, frozen=True):
    """An outcome before it is learned from: who gave it, on which arm, when, and its weight."""

    tenant: str
    key: str
    arm: str
    at_ms: int
    weight: float


class Granted(Struct, frozen=True):
    """What an outcome may weigh for its own tenant, and on the level that all tenants share."""

    local: float
    shared: float


class Voice(Struct, frozen=True):
    """What one tenant says of an arm (and task): the mean of its scores and their weight."""

    mean: float
    weight: float


class Pooled(Struct, frozen=True):
    """The shared view of an arm.

    Attributes:
        mean: the trimmed mean of all seats.
        weight: how many outcomes stand behind the seats that were kept.
        low: the lowest seat that was kept.
        high: the highest seat that was kept.
        reach: the most by which any one tenant moves `mean`, whatever it says.
    """

    mean: float
    weight: float
    low: float
    high: float
    reach: float


class Meter:
    """Grants weights one by one and remembers what was granted in the windows still open.

    Args:
        caps: the limits.
        spent: what `spent` returned before, to go on where an earlier meter stopped.
    """

    def __init__(self, caps: Caps = CAPS, spent: Mapping[Purse, float] | None = None) -> None:
        self._caps = caps
        self._spent = dict(spent or {})

    @property
    def spent(self) -> dict[Purse, float]:
        """The raw weight that was offered, by purse."""
        return dict(self._spent)

    def grant(self, offer: Offer) -> Granted:
        """Return what `offer` may weigh; the more its key has said of the arm, the less."""
        window = offer.at_ms // self._caps.window_ms
        key = (window, offer.tenant, f"key {offer.key}", offer.arm)
        tenant = (window, offer.tenant, "", offer.arm)
        local = self._take(key, offer.weight, self._caps.key)
        return Granted(local, self._take(tenant, local, self._caps.tenant))

    def recall(self, past: Offer) -> None:
        """Count an outcome that was granted before; `weight` is what it was granted then."""
        window = past.at_ms // self._caps.window_ms
        key = (window, past.tenant, f"key {past.key}", past.arm)
        tenant = (window, past.tenant, "", past.arm)
        heard = granted(self._spent.get(key, 0.0), self._caps.key) + past.weight
        self._spent[key] = offered(heard, self._caps.key)
        self._spent[tenant] = self._spent.get(tenant, 0.0) + past.weight

    def forget(self, before_ms: int) -> None:
        """Drop the windows that ended before `before_ms`."""
        oldest = before_ms // self._caps.window_ms
        self._spent = {who: sum for who, sum in self._spent.items() if who[0] >= oldest}

    def _take(self, who: Purse, weight: float, cap: float) -> float:
        before = self._spent.get(who, 0.0)
        after = before + max(weight, 0.0)
        self._spent[who] = after
        return granted(after, cap) - granted(before, cap)


def granted(weight: float, cap: float) -> float:
    """Return what raw `weight` comes to: concave, at most `weight`, always below or at `cap`."""
    return -cap * math.expm1(-weight / cap)


def offered(weight: float, cap: float) -> float:
    """Return the raw weight that comes to `weight`; nothing comes to the whole cap."""
    return -cap * math.log1p(-min(weight / cap, 1.0 - 1e-12))


def trust(agreed: float, contradicted: float) -> float:
    """Return what a key's word is worth, 0 to 1, by how often better channels bore it out.

    A new key is believed; one that says the contrary of tests and validators soon is not.
    """
    odds = (agreed + 4.0) / (agreed + contradicted + 4.0)
    return min(1.0, max(0.0, 2.0 * odds - 1.0)) if contradicted else 1.0


def pooled(voices: Sequence[Voice], prior: float, caps: Caps = CAPS) -> Pooled:
    """Return what tenants say together of an arm that was expected to score `prior`.

    Each tenant has one seat. Its mean, taken to lie within 0 and 1, leans towards the prior as far
    as its weight, cut at the cap, is small.
    """
    seats = sorted([prior] * caps.ghosts + [_leaning(voice, prior, caps) for voice in voices])
    cut = trim(len(seats), caps)
    kept = seats[cut : len(seats) - cut]
    weight = sum(min(max(voice.weight, 0.0), caps.tenant) for voice in voices)
    mean = min(max(math.fsum(kept) / len(kept), kept[0]), kept[-1])
    share = len(kept) / len(seats)
    return Pooled(mean, weight * share, kept[0], kept[-1], reach(seats, caps))


def settled(quality: float, mean: float, shared: Pooled) -> float:
    """Return `quality` as the shared level may learn it from a tenant whose mean is `mean`.

    Where the tenant's mean lies outside the range that other seats bear out, its scores are scaled
    so that their mean is at the border: how its requests differ from one another is learned from,
    how much it praises or blames the arm beyond the others is not.
    """
    within = min(max(mean, shared.low), shared.high)
    if within < mean:
        return quality * within / mean
    if within > mean:
        return 1 - (1 - quality) * (1 - within) / (1 - mean)
    return quality


def reach(seats: Sequence[float], caps: Caps = CAPS) -> float:
    """Return how far the trimmed mean of `seats` (sorted) moves when any one of them lies.

    With a liar above all others instead of below them, the kept seats slide by one: the mean moves
    by the distance of the outermost of them, over how many are kept. The widest case over who lies
    is the distance between the seats just outside the kept ones.
    """
    cut = trim(len(seats), caps)
    return (seats[len(seats) - cut] - seats[cut - 1]) / (len(seats) - 2 * cut)


def trim(seats: int, caps: Caps = CAPS) -> int:
    """Return how many seats are cut off at each end: at least one, never all."""
    return min(max(1, math.floor(caps.trimmed * seats)), (seats - 1) // 2)


def _leaning(voice: Voice, prior: float, caps: Caps) -> float:
    weight = min(max(voice.weight, 0.0), caps.tenant)
    mean = min(max(voice.mean, 0.0), 1.0)
    return (caps.prior * prior + weight * mean) / (caps.prior + weight)
