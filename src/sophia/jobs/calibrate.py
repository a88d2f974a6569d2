"""Look again how far channels and judges are to be believed, by what the ledger holds."""

import asyncio

from sophia.core.ports import Clock, Store
from sophia.learning.ballots import ballots_of
from sophia.learning.calibration import credences
from sophia.learning.lessons import ReadPlan
from sophia.learning.live import Live
from sophia.learning.verdicts import LATEST_MS


class CalibrateChannels:
    """Compares the channels' verdicts of the last thirty days.

    What comes of it is used for verdicts from then on and kept in the next snapshot; lessons that
    were learned stay as they are.

    Args:
        live: what learns, whose beliefs of channels are replaced.
        store: holds the verdicts.
        read: reads a plan.
        clock: tells what day it is.
    """

    def __init__(self, live: Live, store: Store, read: ReadPlan, clock: Clock) -> None:
        self._live = live
        self._store = store
        self._read = read
        self._clock = clock

    async def __call__(self) -> None:
        """Look once."""
        since = int(self._clock.wall() * 1000) - LATEST_MS
        ballots = await ballots_of(self._store, self._read, since)
        shared = self._live.shared
        # Hundreds of rounds over thousands of ballots: not on the loop that serves.
        self._live.credences = await asyncio.to_thread(credences, ballots, shared=shared)
