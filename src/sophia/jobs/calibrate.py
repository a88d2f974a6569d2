"""Estimation of the reliability of feedback channels and judges."""

import asyncio

from sophia.core.ports import Clock, Store
from sophia.learning.feedback.joint_ratings import read_multi_channel_ratings
from sophia.learning.feedback.reliability import estimate_reliability
from sophia.learning.feedback.sources import MAX_FEEDBACK_AGE_MS
from sophia.learning.online.policy import OnlinePolicy


async def calibrate_channels(policy: OnlinePolicy, store: Store, clock: Clock) -> None:
    """Estimate reliability from the feedback of the last thirty days.

    The estimates hold for feedback from then on and are part of the next snapshot; lessons that
    were learned before stay as they are.
    """
    ratings = await read_multi_channel_ratings(
        store, int(clock.wall() * 1000) - MAX_FEEDBACK_AGE_MS
    )
    # Hundreds of rounds over thousands of ratings would block the event loop.
    policy.reliabilities = await asyncio.to_thread(
        estimate_reliability, ratings, shared=policy.shared
    )
