"""A worker's journal: its actions, appended to files of its own before they happen.

A record is its length and CRC-32, four bytes each, and msgpack. Written records survive the end
of the process at once, and that of the machine once it is synced.
"""

import errno
import logging
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from sophia.core.rows import AttemptIntent, AttemptOutcome, GenerationNote

log = logging.getLogger("sophia.ledger")

SEGMENT_BYTES = 16 << 20
_FRAME = struct.Struct("<II")
_MAX_RECORD_BYTES = 64 << 20
_READ_BYTES = 1 << 20


class Reserved(Struct, array_like=True, tag=1, frozen=True, gc=False):
    """An attempt that is about to be dispatched."""

    intent: AttemptIntent


class Noted(Struct, array_like=True, tag=2, frozen=True, gc=False):
    """The upstream's id of a running attempt."""

    note: GenerationNote


class Ended(Struct, array_like=True, tag=3, frozen=True, gc=False):
    """The outcome of an attempt, and the accounts in which it was paid from a lease."""

    outcome: AttemptOutcome
    leased: tuple[str, ...] = ()


Record = Reserved | Noted | Ended


def encode_record(record: Record) -> bytes:
    """Return a record with its frame. Raises ValueError or OverflowError when it has no form."""
    payload = msgspec.msgpack.encode(record)
    return _FRAME.pack(len(payload), zlib.crc32(payload)) + payload


class Journal:
    """The growing end of a journal in `folder`; for one thread.

    Records that were appended and could not be written stay in memory and are written with the
    next ones. `appended` counts all records.
    """

    def __init__(self, folder: Path, *, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._waiting = bytearray()
        self._waiting_count = 0
        self.appended = 0
        self.descriptor = -1
        self._open_segment()

    @property
    def written(self) -> int:
        """The number of records that are in the files."""
        return self.appended - self._waiting_count

    def append(self, record: Record) -> None:
        """Take a record that `write` writes later."""
        self._waiting += encode_record(record)
        self._waiting_count += 1
        self.appended += 1

    def write_with(self, record: Record) -> None:
        """Write what waits and `record`. Raises OSError, and `record` is not taken then."""
        encoded = encode_record(record)
        self._write(bytes(self._waiting) + encoded if self._waiting else encoded)
        self.appended += 1

    def write(self) -> None:
        """Write what waits. Raises OSError, and it still waits then."""
        if self._waiting:
            self._write(bytes(self._waiting))

    def close(self) -> None:
        """Close the file; what could not be written is lost."""
        os.close(self.descriptor)

    def _write(self, data: bytes) -> None:
        if self._size >= self._segment_bytes:
            self._open_segment()
        written = os.write(self.descriptor, data)
        if written < len(data):
            try:
                os.ftruncate(self.descriptor, self._size)
            except OSError:
                self._open_segment()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._size += written
        self._waiting.clear()
        self._waiting_count = 0

    def _open_segment(self) -> None:
        number = max(list_segments(self._folder), default=0) + 1
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
        descriptor = os.open(segment_path(self._folder, number), flags, 0o600)
        # The folder's entry too, or a power cut could lose a file that was synced.
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        if self.descriptor >= 0:
            os.fdatasync(self.descriptor)
            os.close(self.descriptor)
        self.descriptor, self._size = descriptor, 0


class JournalReader:
    """Reads a journal from its beginning; for one thread.

    `is_left` says that its worker is dead, so that a record that ends too early is torn.
    """

    def __init__(self, folder: Path, *, is_left: bool) -> None:
        self._folder = folder
        self._is_left = is_left
        self._segment = min(list_segments(folder), default=1)
        self._offset = self._next_offset = 0
        self._finished: list[int] = []

    def read(self) -> list[Record]:
        """Return the next records, at most about a megabyte of them; none when all were read."""
        records: list[Record] = []
        self._next_offset = self._offset
        while not records:
            # Looked at first: what was read then is all that the segment will ever hold.
            is_finished = self._is_left or self._has_next_segment()
            data = self._read_bytes()
            decoded = list(decode_records(data))
            records += [record for record, _ in decoded]
            end = decoded[-1][1] if decoded else 0
            self._next_offset += end
            if records or not is_finished:
                break
            if end < len(data):
                self._warn_of_rest(len(data) - end)
            if not self._has_next_segment():
                break
            self._finished.append(self._segment)
            self._segment += 1
            self._offset = self._next_offset = 0
        return records

    def commit(self) -> None:
        """Go on behind the last records, and remove the files that are read to their end."""
        self._offset = self._next_offset
        for number in self._finished:
            segment_path(self._folder, number).unlink(missing_ok=True)
        self._finished = []

    def remove(self) -> None:
        """Remove all files of the journal."""
        for number in list_segments(self._folder):
            segment_path(self._folder, number).unlink(missing_ok=True)

    def _read_bytes(self) -> bytes:
        with (
            suppress(FileNotFoundError),
            segment_path(self._folder, self._segment).open("rb") as file,
        ):
            size, wanted = os.fstat(file.fileno()).st_size, _READ_BYTES
            file.seek(self._next_offset)
            data = file.read(wanted)
            if len(data) >= _FRAME.size:
                # One record may be longer than a usual read.
                longest = _FRAME.unpack_from(data)[0] + _FRAME.size
                if len(data) < longest <= size - self._next_offset:
                    data += file.read(longest - len(data))
            return data
        return b""

    def _has_next_segment(self) -> bool:
        return any(number > self._segment for number in list_segments(self._folder))

    def _warn_of_rest(self, size: int) -> None:
        path = segment_path(self._folder, self._segment)
        log.warning("%s: %d bytes after the last whole record are left out", path, size)


def decode_records(data: bytes) -> Iterator[tuple[Record, int]]:
    """Yield the whole records at the beginning of `data`, each with the offset of its end."""
    end = 0
    while end + _FRAME.size <= len(data):
        size, checksum = _FRAME.unpack_from(data, end)
        start = end + _FRAME.size
        payload = data[start : start + size]
        if size > _MAX_RECORD_BYTES or len(payload) < size or zlib.crc32(payload) != checksum:
            return
        end = start + size
        try:
            record = _DECODER.decode(payload)
        except msgspec.DecodeError as error:
            log.critical("a record of the journal is of another release, and left out: %s", error)
            continue
        yield record, end


def list_segments(folder: Path) -> list[int]:
    """Return the numbers of the files of a journal, in their order."""
    return sorted(int(path.stem) for path in folder.glob("*.journal") if path.stem.isdigit())


def segment_path(folder: Path, number: int) -> Path:
    """Return the path of a file of a journal."""
    return folder / f"{number:08d}.journal"


_DECODER: msgspec.msgpack.Decoder[Record] = msgspec.msgpack.Decoder(Record)
