"""The journal: what was written is read again, whatever stands behind it."""

import asyncio
import os
import random
import struct
import threading
import time
import zlib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from disk import full_disk
from sophia.adapters.store.journaling.files import (
    Ended,
    Journal,
    JournalReader,
    Record,
    Reserved,
    decode_records,
    encode_record,
    list_segments,
)
from sophia.adapters.store.journaling.slots import claim_slot
from sophia.adapters.store.journaling.worker import WorkerJournal
from sophia.core.errors import Unavailable
from store_rows import NOW, intent, outcome

RECORDS: list[Record] = [
    record
    for number in range(40)
    for record in (Reserved(intent(NOW + 16 * number)), Ended(outcome(NOW + 16 * number), ("k",)))
]


def read_all(reader: JournalReader) -> list[Record]:
    found = []
    while records := reader.read():
        found += records
        reader.commit()
    reader.commit()
    return found


def test_records_are_read_in_their_order_over_many_files(tmp_path: Path) -> None:
    journal, reader = Journal(tmp_path, segment_bytes=1000), JournalReader(tmp_path, is_left=False)
    found: list[Record] = []
    for number, record in enumerate(RECORDS):
        journal.append(record) if number % 3 else journal.write_with(record)
        if number % 7 == 0:
            journal.write()
            found += read_all(reader)
    journal.write()
    found += read_all(reader)
    journal.close()
    assert found == RECORDS and journal.appended == len(RECORDS)
    assert len(list_segments(tmp_path)) == 1, "files that were read are removed"


@given(st.integers(0, 3000), st.binary(max_size=40))
def test_a_torn_end_loses_the_torn_record_only(cut: int, garbage: bytes) -> None:
    encoded = [encode_record(record) for record in RECORDS[:20]]
    data = b"".join(encoded)
    whole = max(n for n in range(21) if sum(map(len, encoded[:n])) <= cut)
    found = [record for record, _ in decode_records(data[:cut] + garbage)]
    assert found[:whole] == RECORDS[:whole]
    assert len(found) == whole or (data[:cut] + garbage).startswith(data[: cut + 1])


def test_what_a_dead_worker_left_ends_at_the_last_whole_record(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Journal(tmp_path, segment_bytes=2000)
    for record in RECORDS[:30]:
        journal.write_with(record)
    journal.close()
    first, *_, last = list_segments(tmp_path)
    for number in (first, last):
        with (tmp_path / f"{number:08d}.journal").open("ab") as file:
            file.write(os.urandom(23))
    assert read_all(JournalReader(tmp_path, is_left=True)) == RECORDS[:30]
    assert caplog.text.count("23 bytes after the last whole record") == 2


def test_a_record_that_is_being_written_is_read_when_it_is_whole(tmp_path: Path) -> None:
    journal, reader = Journal(tmp_path), JournalReader(tmp_path, is_left=False)
    journal.write_with(RECORDS[0])
    encoded = encode_record(RECORDS[1])
    path = tmp_path / "00000001.journal"
    with path.open("ab", buffering=0) as file:
        file.write(encoded[:9])
        assert read_all(reader) == RECORDS[:1]
        assert read_all(reader) == []
        file.write(encoded[9:])
    assert read_all(reader) == RECORDS[1:2]
    journal.close()


def test_a_long_record_is_read(tmp_path: Path) -> None:
    journal, reader = Journal(tmp_path), JournalReader(tmp_path, is_left=False)
    long = Reserved(replace(intent(NOW), plan=b"x" * 3_000_000))
    for record in (RECORDS[0], long, RECORDS[1]):
        journal.write_with(record)
    assert read_all(reader) == [RECORDS[0], long, RECORDS[1]]
    journal.close()


def test_a_full_disk_refuses_an_intent_and_keeps_what_waits(tmp_path: Path) -> None:
    journal, reader = Journal(tmp_path), JournalReader(tmp_path, is_left=False)
    journal.write_with(RECORDS[0])
    journal.append(RECORDS[1])
    with full_disk():
        with pytest.raises(OSError, match="too large"):
            journal.write_with(RECORDS[2])
        with pytest.raises(OSError, match="too large"):
            journal.write()
    assert journal.appended == 2
    journal.write()
    assert read_all(reader) == RECORDS[:2]
    journal.close()


def test_a_disk_that_fills_in_mid_record_leaves_no_half_of_it(tmp_path: Path) -> None:
    journal, reader = Journal(tmp_path), JournalReader(tmp_path, is_left=False)
    journal.write_with(RECORDS[0])
    size = (tmp_path / "00000001.journal").stat().st_size
    with full_disk(size + 11), pytest.raises(OSError, match="No space left"):
        journal.write_with(RECORDS[1])
    journal.write_with(RECORDS[2])
    assert read_all(reader) == [RECORDS[0], RECORDS[2]]
    journal.close()


def test_files_that_fill_up_while_they_are_read_lose_nothing(tmp_path: Path) -> None:
    journal, reader = Journal(tmp_path, segment_bytes=400), JournalReader(tmp_path, is_left=False)
    written = [Reserved(intent(NOW + 16 * number)) for number in range(3000)]
    found: list[Record] = []
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            found.extend(read_all(reader))
        found.extend(read_all(reader))

    thread = threading.Thread(target=read)
    thread.start()
    for record in written:
        journal.write_with(record)
    done.set()
    thread.join()
    journal.close()
    assert found == written


def test_a_record_of_another_release_costs_only_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Journal(tmp_path)
    journal.write_with(RECORDS[0])
    foreign = msgspec.msgpack.encode([9, "of another release"])
    frame = struct.pack("<II", len(foreign), zlib.crc32(foreign))
    with (tmp_path / "00000001.journal").open("ab") as file:
        file.write(frame + foreign + encode_record(RECORDS[1]))
    journal.close()
    assert read_all(JournalReader(tmp_path, is_left=True)) == RECORDS[:2]
    assert "of another release" in caplog.text


async def test_reservations_that_come_while_others_are_synced_do_not_wait_for_more(
    tmp_path: Path,
) -> None:
    """With `sync_ms: 0`, whatever the thread does at the moment."""
    slot = claim_slot(tmp_path)
    journal = WorkerJournal(slot, lambda _: time.sleep(0.003), 0.0)
    chance = random.Random(3)

    async def reserve(number: int, delay: float) -> None:
        await asyncio.sleep(delay)
        await journal.reserve(intent(NOW + 16 * number))

    async with asyncio.timeout(20):
        for number in range(0, 200, 2):
            late = chance.uniform(0.0, 0.006)
            await asyncio.gather(reserve(number, 0.0), reserve(number + 1, late))
    await journal.close()
    slot.release()


async def test_a_flush_fails_at_once_while_the_disk_is_full(tmp_path: Path) -> None:
    slot = claim_slot(tmp_path)
    journal = WorkerJournal(slot, lambda _: None, 0.05)
    with full_disk():
        journal.settle(outcome(NOW), ())
        async with asyncio.timeout(2):
            with pytest.raises(Unavailable, match="journal"):
                await journal.flush()
    async with asyncio.timeout(5):
        while journal.problem:
            await asyncio.sleep(0.05)
        await journal.flush()
    assert await journal.close()
    slot.release()
