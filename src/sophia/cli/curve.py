"""A curve of numbers as rows of block characters."""

from collections.abc import Sequence

_EIGHTHS = " ▁▂▃▄▅▆▇█"
_WIDEST = 6


def curve(values: Sequence[float], width: int, height: int = 4) -> list[str]:
    """Return `height` lines of at most `width` characters, the top one first.

    Each value is a bar; neighbours are added up where there are more values than places. What is
    not zero is never drawn as nothing.
    """
    values = _squeezed(values, max(width, 1))
    peak = max(values, default=0)
    if peak <= 0:
        return [""] * height
    broad = max(min(width // len(values), _WIDEST), 1)
    levels = [max(round(value / peak * height * 8), 1) if value > 0 else 0 for value in values]
    return [
        "".join(_bar(level - 8 * row, broad) for level in levels).rstrip()
        for row in reversed(range(height))
    ]


def _bar(level: int, broad: int) -> str:
    block = _EIGHTHS[min(max(level, 0), 8)]
    return block if broad == 1 else block * (broad - 1) + " "


def _squeezed(values: Sequence[float], places: int) -> Sequence[float]:
    size = -(-len(values) // places)
    return [sum(values[start : start + size]) for start in range(0, len(values), size or 1)]
