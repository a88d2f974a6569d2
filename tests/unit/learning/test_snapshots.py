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
    Snapshot,
    UnknownSnapshot,
    current,
    decode,
    decode_history,
    encode,
    encode_history,
    identity,
    lineage,
    promote,
    rollback,
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


def test_a_history_is_added_to_and_goes_back_step_by_step() -> None:
    history: History = ()
    assert current(history) is None
    for at, id in enumerate("abc"):
        history = promote(history, id, at, "better")
    assert promote(history, "c", 9, "again") == history
    back = rollback(history, None, 10)
    assert current(back) == "b"
    assert back[:3] == history
    assert current(rollback(back, None, 11)) == "a"
    onwards = promote(back, "d", 12, "better")
    assert current(rollback(onwards, None, 13)) == "b"
    assert current(rollback(onwards, "c", 13)) == "c"
    returned = promote(onwards, "a", 13, "better")
    assert current(rollback(returned, None, 14)) == "d"
    with pytest.raises(UnknownSnapshot):
        rollback(onwards, "z", 14)
    with pytest.raises(UnknownSnapshot):
        rollback(history[:1], None, 14)
    with pytest.raises(UnknownSnapshot):
        rollback((), None, 14)


def test_a_history_is_written_and_read() -> None:
    history = promote(promote((), "a", 1, "first"), "b", 2, "better")
    assert decode_history(encode_history(history)) == history
    assert decode_history(None) == ()
    with pytest.raises(BrokenSnapshot, match="history"):
        decode_history(encode_history(history)[:-9])


@given(st.lists(st.sampled_from("abcd"), max_size=12))
def test_going_back_never_leads_to_what_never_served(ids: list[str]) -> None:
    history: History = ()
    for at, id in enumerate(ids):
        history = promote(history, id, at, "better")
    for _ in range(len(history) + 1):
        try:
            history = rollback(history, None, 99)
        except UnknownSnapshot:
            break
        assert current(history) in ids
    else:
        pytest.fail("going back has no end")
    if history:
        assert current(history) == ids[0]


def test_files_are_written_once_and_read_back(tmp_path: Path) -> None:
    folder = SnapshotFolder(tmp_path / "new" / "snapshots")
    assert folder.ids() == []
    assert folder.load(identity(FIRST)) is None
    folder.save(identity(FIRST), encode(FIRST))
    folder.save(identity(SECOND), encode(SECOND))
    folder.save(identity(FIRST), encode(FIRST))
    assert folder.ids() == sorted([identity(FIRST), identity(SECOND)])
    assert folder.find(identity(FIRST)[:8]) == [identity(FIRST)]
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
