"""The machine's clock behind the Clock port."""

import time


class SystemClock:
    """Real time: `monotonic` in seconds from an arbitrary start, `wall` in Unix seconds."""

    monotonic = staticmethod(time.monotonic)
    wall = staticmethod(time.time)
