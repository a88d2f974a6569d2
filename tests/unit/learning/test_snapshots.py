"""Snapshots: named by their content, refused when touched, and with a way back."""

import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from sophia.adapters.store.snapshots import SnapshotFolder
from sophia.learning.snapshots import (
    MAGIC,
    BrokenSnapshot,
    History,
    Keeping,
    Snapshot,
    Stint,
    UnknownSnapshot,
    current,
    decode,
    decode_history,
    encode,
    encode_history,
    identity,
    lineage,
    promote,
    prune,
    target,
)

FIRST = Snapshot("hierarchical", b"\x00state", 1_700_000_000_000, window=(5, 9), metrics={"b": 2.0, "a": 0.1})
SECOND = replace(FIRST, state=b"more", parent=identity(FIRST))
THIRD = replace(SECOND, state=b"most", parent=identity(SECOND))

snapshots = st.builds(
    Snapshot,
    policy=st.text(max_size=20),
    state=st.binary(max_size=200),
    created_ms=st.integers(0, 2**53),
    parent=st.none() | st.just(identity(FIRST)),
    window=st.tuples(st.integers(0, 2**53), st.integers(0, 2**53)),
    metrics=st.dictionaries(st.text(max_size=5), st.floats(allow_nan=False), max_size=4),
)


@given(snapshots)
def test_what_was_written_is_read(snapshot: Snapshot) -> None:
    assert decode(encode(snapshot), identity(snapshot)) == snapshot


@given(snapshots, st.data())
def test_any_changed_bit_is_noticed(snapshot: Snapshot, data: st.DataObject) -> None:
    blob = bytearray(encode(snapshot))
    place = data.draw(st.integers(0, len(blob) * 8 - 1))
    blob[place // 8] ^= 1 << place % 8
    with pytest.raises(BrokenSnapshot):
        decode(bytes(blob))


@given(snapshots, st.data())
def test_any_cut_or_longer_blob_is_noticed(snapshot: Snapshot, data: st.DataObject) -> None:
    blob = encode(snapshot)
    with pytest.raises(BrokenSnapshot):
        decode(blob[: data.draw(st.integers(0, len(blob) - 1))])
    with pytest.raises(BrokenSnapshot):
        decode(blob + b"x")


def test_the_id_is_the_content() -> None:
    """The order of figures does not matter; everything else does."""
    same = replace(FIRST, metrics={"a": 0.1, "b": 2.0})
    assert encode(same) == encode(FIRST)
    assert len(identity(FIRST)) == 64
    others = [
        replace(FIRST, policy="x"),
        replace(FIRST, state=b"x"),
        replace(FIRST, created_ms=1),
        replace(FIRST, parent=identity(FIRST)),
        replace(FIRST, window=(5, 8)),
        replace(FIRST, metrics={"a": 0.1}),
    ]
    assert len({identity(one) for one in [FIRST, *others]}) == 7


def test_another_snapshot_under_this_id_is_refused() -> None:
    with pytest.raises(BrokenSnapshot, match=identity(SECOND)[:12]):
        decode(encode(SECOND), identity(FIRST))


def test_what_is_wrong_is_said() -> None:
    with pytest.raises(BrokenSnapshot, match="no snapshot"):
        decode(b"PK\x03\x04")
    with pytest.raises(BrokenSnapshot, match="changed or cut"):
        decode(encode(FIRST)[:-1])
    with pytest.raises(BrokenSnapshot, match="cannot be read"):
        decode(sealed(b"\xc1"))
    with pytest.raises(BrokenSnapshot, match="cannot be read"):
        decode(sealed(b"\x80"))
    body = encode(FIRST)[len(MAGIC) + 32 :]
    with pytest.raises(BrokenSnapshot):
        decode(sealed(body + b"\x00"))


def sealed(body: bytes) -> bytes:
    import hashlib

    return MAGIC + hashlib.sha256(body).digest() + body


def test_a_lineage_goes_back_to_the_first() -> None:
    known = {identity(one): one for one in (FIRST, SECOND, THIRD)}
    assert list(lineage(identity(THIRD), known)) == [THIRD, SECOND, FIRST]
    del known[identity(FIRST)]
    assert list(lineage(identity(THIRD), known)) == [THIRD, SECOND]
    with pytest.raises(UnknownSnapshot):
        list(lineage(identity(FIRST), known))


def after(history: History, *ids: str) -> History:
    """Return the history with these snapshots put into service one after the other."""
    for id in ids:
        history = promote(history, Stint(id, len(history), "better"))
    return history


def back(history: History, to: str | None = None) -> History:
    """Return the history gone back, as it is written: with a copy that has an id of its own."""
    goal = target(history, to)
    origin = goal.of or goal.id
    return promote(history, Stint(f"{len(history)} is {goal.id}", len(history), "back", of=origin))


def knows(history: History) -> str:
    """Return the snapshot whose knowledge is in service."""
    return history[-1].of or history[-1].id


def test_a_history_is_added_to_and_goes_back_step_by_step() -> None:
    """Each `previous` undoes one more step; what came after going back is a step again."""
    history = after((), "a", "b", "c")
    assert current(()) is None and current(history) == "c"
    assert after(history, "c") == history
    once = back(history)
    assert once[:3] == history and knows(once) == "b"
    assert knows(back(once)) == "a"
    with pytest.raises(UnknownSnapshot, match="none before"):
        back(back(once))
    onwards = after(once, "d")
    assert knows(back(onwards)) == "b"
    assert knows(back(onwards, "c")) == "c"
    assert knows(back(back(onwards, "c"))) == "d"
    assert knows(back(after(back(onwards, "a"), "e"))) == "a"
    copy = current(once)
    assert copy is not None and knows(back(onwards, copy)) == "b"
    for bad in ("z", ""):
        with pytest.raises(UnknownSnapshot, match="can mean"):
            target(onwards, bad)
    for short in (history[:1], ()):
        with pytest.raises(UnknownSnapshot):
            target(short, None)


def test_what_only_amends_a_step_is_none_of_its_own() -> None:
    """New models come into what is in service; going back goes past them."""
    history = promote(after((), "a", "b"), Stint("b and more", 2, "new models", amends=True))
    assert knows(back(history)) == "a"
    gone_back = promote(back(history), Stint("a and more", 4, "new models", amends=True))
    with pytest.raises(UnknownSnapshot, match="none before"):
        target(gone_back, None)


def test_a_history_is_written_and_read() -> None:
    history = promote(after((), "a", "b"), Stint("c", 7, "x", of="a", amends=True, gone=True))
    assert decode_history(encode_history(history)) == history
    assert decode_history(None) == ()
    with pytest.raises(BrokenSnapshot, match="history"):
        decode_history(encode_history(history)[:-9])


@given(st.lists(st.sampled_from("abcdef<"), max_size=20))
def test_going_back_undoes_steps_like_a_stack(moves: list[str]) -> None:
    """Whatever was done before: `previous` leads where the last step not undone began."""
    history: History = ()
    line: list[str] = []
    for number, move in enumerate(moves):
        if move != "<":
            history = after(history, f"{move}{number}")
            line.append(f"{move}{number}")
        elif len(line) > 1:
            history = back(history)
            line.pop()
        if line:
            assert knows(history) == line[-1]
    if len(line) <= 1:
        with pytest.raises(UnknownSnapshot):
            target(history, None)


DAY_MS = 86_400_000


@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=30),
    st.integers(0, 20),
    st.integers(1, 5),
    st.lists(st.booleans(), max_size=5),
)
def test_no_snapshot_is_dropped_that_somebody_may_need(
    ages: list[int], days: int, steps: int, backs: list[bool]
) -> None:
    """Decisions of the last days, the last in service, and every step that can be undone."""
    now = 100 * DAY_MS
    history: History = ()
    for number, age in enumerate(sorted(ages, reverse=True)):
        history = promote(history, Stint(f"s{number}", now - age * DAY_MS, "better"))
    for back_now in backs:
        if back_now and len(history) > 1:
            try:
                history = back(history)
            except UnknownSnapshot:
                break
    history = tuple(replace(one, at_ms=now) if one.of else one for one in history)
    pruned = prune(history, Keeping(days, steps), now)
    assert [one.id for one in pruned] == [one.id for one in history]
    gone = {one.id for one in pruned if one.gone}
    ends = [*(one.at_ms for one in history[1:]), now]
    for one, end in zip(history, ends, strict=True):
        assert one.id not in gone or end < now - days * DAY_MS
    assert not gone & {one.id for one in history[-steps:]}
    undone = history
    for _ in range(steps - 1):
        try:
            goal = target(prune(undone, Keeping(days, steps), now), None)
        except UnknownSnapshot as error:
            assert "none before" in str(error)
            break
        assert goal.id not in gone
        undone = back(undone)
    assert prune(pruned, Keeping(days, steps), now) == pruned


def test_files_are_written_once_and_read_back(tmp_path: Path) -> None:
    folder = SnapshotFolder(tmp_path / "new" / "snapshots")
    assert folder.ids() == []
    assert folder.load(identity(FIRST)) is None
    folder.save(identity(FIRST), encode(FIRST))
    folder.save(identity(SECOND), encode(SECOND))
    folder.save(identity(FIRST), encode(FIRST))
    assert folder.ids() == sorted([identity(FIRST), identity(SECOND)])
    blob = SnapshotFolder(tmp_path / "new" / "snapshots").load(identity(FIRST))
    assert blob is not None
    assert decode(blob, identity(FIRST)) == FIRST
    folder.remove(identity(FIRST))
    folder.remove(identity(FIRST))
    assert folder.ids() == [identity(SECOND)]


def test_a_broken_file_is_written_anew(tmp_path: Path) -> None:
    folder = SnapshotFolder(tmp_path)
    folder.save(identity(FIRST), encode(FIRST)[:9])
    folder.save(identity(FIRST), encode(FIRST))
    assert folder.load(identity(FIRST)) == encode(FIRST)


def test_the_history_is_replaced_whole(tmp_path: Path) -> None:
    folder = SnapshotFolder(tmp_path)
    assert folder.history() is None
    folder.record(b"one")
    folder.record(b"two")
    assert folder.history() == b"two"
    assert [file.name for file in tmp_path.iterdir()] == ["history"]


def test_a_write_that_fails_leaves_the_old_state(tmp_path: Path) -> None:
    """A disk that is full: the old history stands, and no scrap is left behind."""
    folder = SnapshotFolder(tmp_path)
    folder.record(b"one")
    with pytest.raises(TypeError):
        folder.record("text is no bytes")  # type: ignore[arg-type]
    assert folder.history() == b"one"
    assert [file.name for file in tmp_path.iterdir()] == ["history"]


def test_learned_states_are_for_their_owner_alone(tmp_path: Path) -> None:
    folder = SnapshotFolder(tmp_path)
    folder.save(identity(FIRST), encode(FIRST))
    (file,) = tmp_path.iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


@pytest.mark.parametrize("id", ["", "../../etc/passwd", "A" * 64, "a" * 63, "a" * 65])
def test_an_id_leads_nowhere_else(tmp_path: Path, id: str) -> None:
    folder = SnapshotFolder(tmp_path)
    with pytest.raises(ValueError, match="64 hexadecimal digits"):
        folder.load(id)
    with pytest.raises(ValueError, match="64 hexadecimal digits"):
        folder.save(id, b"")
    (tmp_path / "stray.snapshot").write_bytes(b"")
    assert folder.ids() == []
