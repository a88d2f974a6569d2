"""Bounded dictionaries drop their least recently used entry."""

from sophia.core.bounded import BoundedDict


def test_a_new_entry_drops_the_least_recently_used() -> None:
    entries = BoundedDict(2, [("a", 1), ("b", 2)])
    entries["a"] = 3
    entries["c"] = 4
    assert list(entries.items()) == [("a", 3), ("c", 4)]


def test_reading_does_not_count_as_use_unless_marked() -> None:
    entries = BoundedDict(2, [("a", 1), ("b", 2)])
    assert entries.get("a") == 1 and entries["a"] == 1
    entries["c"] = 3
    assert list(entries) == ["b", "c"]
    entries.move_to_end("b")
    entries.setdefault("d", 4)
    assert list(entries) == ["b", "d"]
