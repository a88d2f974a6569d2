"""Dictionary of bounded size that drops its least recently used entry."""

from collections import OrderedDict
from collections.abc import Iterable
from typing import TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class BoundedDict(OrderedDict[Key, Value]):
    """Dictionary of at most `max_size` entries; a new one drops the least recently used.

    Assigning an entry counts as use. Reading does not, so that the order follows from the writes
    alone; a reader for which it should calls `move_to_end`.
    """

    def __init__(self, max_size: int, items: Iterable[tuple[Key, Value]] = ()) -> None:
        super().__init__()
        self.max_size = max_size
        self.update(items)

    def __setitem__(self, key: Key, value: Value) -> None:
        super().__setitem__(key, value)
        self.move_to_end(key)
        if len(self) > self.max_size:
            self.popitem(last=False)
