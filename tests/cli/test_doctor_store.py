"""`sophia doctor` on a store: what is wrong there, and what to do, in words."""

import json
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from msgspec.structs import replace
from terminal import Run, Served, clean_environment

from disk import full_disk
from postgres_server import PASSWORD, PostgresServer
from sophia.adapters.store.driver import load_sqlite
from sophia.adapters.store.journaling.files import Journal, Reserved
from sophia.adapters.store.journaling.slots import lock_slot
from sophia.core.ids import first_id_at
from sophia.core.rows import KeyRow
from store_rows import NOW, intent, outcome
from stores import write_rows

KEY = {
    "OPENROUTER_API_KEY": "sk-or-test",
    "OPENROUTER_BASE_URL": "http://127.0.0.1:9/v1",
    "SOPHIA_PORT": "0",
}
TODAY = datetime.now(UTC).date().isoformat()


@pytest.fixture
def data(tmp_path: Path, migrated: Path) -> Path:
    """A data folder with a key."""
    folder = tmp_path / "data"
    folder.mkdir(mode=0o700)
    shutil.copy(migrated, folder / "sophia.db")
    write_rows(folder / "sophia.db", [KeyRow("k", b"", "web", "inference", None, None, 1)])
    return folder


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    return postgres.create_database()


def find(run: Run, subject: str, **variables: str) -> list[tuple[str, str, str]]:
    """Return status, detail and fix of the findings on a subject."""
    ran = run("doctor", "--json", **(KEY | variables))
    assert "Traceback" not in ran.err and PASSWORD not in ran.out + ran.err
    rows = [row for row in json.loads(ran.out) if row["subject"] == subject]
    return [(row["status"], row["detail"], row["fix"]) for row in rows]


def change(data: Path, *statements: str) -> None:
    connection = load_sqlite().connect(str(data / "sophia.db"), isolation_level=None)
    for statement in statements:
        connection.execute(statement)
    connection.close()


def test_a_store_without_leftovers_is_well(run: Run, data: Path) -> None:
    for subject in ("journals", "leases", "clock", "serving"):
        assert find(run, subject, SOPHIA_DATA_DIR=str(data)) == []
    assert find(run, "ledger", SOPHIA_DATA_DIR=str(data))[0][0] == "ok"


def test_journals_of_dead_workers_are_counted(run: Run, data: Path) -> None:
    """One that a running worker writes is not among them."""
    for number in (3, 4):
        folder = data / "journal" / str(number)
        folder.mkdir(parents=True)
        journal = Journal(folder)
        journal.write_with(Reserved(intent(NOW + number)))
        journal.write_with(Reserved(intent(NOW + 16 + number)))
        journal.close()
    with (data / "journal" / "3" / "00000001.journal").open("ab") as file:
        file.write(b"torn")
    running = lock_slot(data, 4)
    assert running is not None
    ((status, detail, fix),) = find(run, "journals", SOPHIA_DATA_DIR=str(data))
    running.release()
    size = (data / "journal" / "3" / "00000001.journal").stat().st_size
    assert status == "warning" and f"has 2 records ({size} bytes) of dead workers (3)" in detail
    assert "4 bytes that are no whole record" in detail
    assert "sophia serve" in fix


def test_leases_of_dead_workers_are_named(run: Run, data: Path) -> None:
    running = lock_slot(data, 4)
    assert running is not None
    change(data, f"INSERT INTO leases VALUES (3, 'k', '{TODAY}', 1500000000, 0),"
           f" (4, 'k', '{TODAY}', 7, 0), (3, 'sophia:judge', '{TODAY}', 2, 0)")  # fmt: skip
    ((status, detail, fix),) = find(run, "leases", SOPHIA_DATA_DIR=str(data))
    running.release()
    assert status == "warning" and f"worker 3 has $1.50 of key web (k) for {TODAY}" in detail
    assert "of sophia:judge" in detail and "worker 4" not in detail and "sophia serve" in fix


def test_leases_of_a_machine_that_is_gone_are_named(
    run: Run, data: Path, url: str, postgres: PostgresServer
) -> None:
    """A worker of another machine that shows itself is not gone, and its journal is not here."""
    name, now = url.rpartition("/")[2], int(time.time() * 1000)
    postgres.execute(f"INSERT INTO workers VALUES (3, 'a', {now - 120_000}), (4, 'b', {now}),"
                     f" (5, 'here', {now}), (6, '', {now - 900_000})", name)  # fmt: skip
    for number in (3, 4, 5, 6):
        postgres.execute(f"INSERT INTO leases VALUES ({number}, 'k', '{TODAY}', 500, 0)", name)
    (data / "journal" / "5").mkdir(parents=True)
    (data / "journal" / "5" / "token").write_text("here")
    here, there = find(run, "leases", SOPHIA_DATA_DIR=str(data), SOPHIA_STORE_URL=url)
    assert "worker 5 has $0.0000005 of k" in here[1] and "sophia serve" in here[2]
    assert "worker 3 (not seen for 12" in there[1] and "worker 6 (not seen for 90" in there[1]
    assert "worker 4" not in there[1] and "on that machine" in there[2]


def test_what_stays_held_after_a_power_cut_is_named(run: Run, data: Path) -> None:
    """Without what attempts of unknown cost hold, which ends by itself."""
    rows = [replace(outcome(NOW, "unknown", cost=40, window=TODAY), held_nano=40), intent(NOW)]
    write_rows(data / "sophia.db", rows)
    assert find(run, "leases", SOPHIA_DATA_DIR=str(data)) == []
    change(data, f"UPDATE accounts SET held_nano = held_nano + 2000000000 WHERE window = '{TODAY}'")
    ((status, detail, fix),) = find(run, "leases", SOPHIA_DATA_DIR=str(data))
    assert status == "warning" and detail.startswith("$2.00 of key web (k) stays held until")
    assert "sophia keys update" in fix


@pytest.mark.parametrize("database", ["file", "server"])
def test_a_schema_of_another_release_is_named(
    run: Run, data: Path, url: str, postgres: PostgresServer, database: str
) -> None:
    """An older one is brought up to date; a newer one needs a newer Sophia."""
    where = {"SOPHIA_DATA_DIR": str(data), "SOPHIA_STORE_URL": url}
    if database == "file":
        del where["SOPHIA_STORE_URL"]
    for revision, status, remedy in (("0002", "warning", "db upgrade"), ("9999", "error", "newer")):
        sql = f"UPDATE alembic_version SET version_num = '{revision}'"
        change(data, sql)
        postgres.execute(sql, url.rpartition("/")[2])
        ((found, detail, fix),) = find(run, "ledger", **where)
        assert found == status and f"schema {revision}, this release has" in detail
        assert remedy in fix


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({PASSWORD: "mistyped"}, "password authentication failed"),
        ({"/test_": "/no_test_"}, "does not exist"),
        ({"sophia:": "nobody:"}, "authentication failed"),
        ({"127.0.0.1": "db.invalid"}, "db.invalid"),
    ],
)
def test_a_wrong_address_of_the_server_is_named(
    run: Run, data: Path, url: str, wrong: dict[str, str], reason: str
) -> None:
    for right, other in wrong.items():
        url = url.replace(right, other)
    ((status, detail, _),) = find(run, "ledger", SOPHIA_DATA_DIR=str(data), SOPHIA_STORE_URL=url)
    assert status == "error" and reason in detail and "correct the address" in detail


@contextmanager
def old_postgres() -> Iterator[str]:
    """A server that says that it is PostgreSQL 14."""
    ready = b"R" + struct.pack("!ii", 8, 0)
    for name, value in ((b"server_version", b"14.9"), (b"client_encoding", b"UTF8")):
        body = name + b"\0" + value + b"\0"
        ready += b"S" + struct.pack("!i", 4 + len(body)) + body
    ready += b"Z" + struct.pack("!i", 5) + b"I"

    def answer() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                # libpq asks for encryption first.
                while (request := connection.recv(1024)) and len(request) <= 16:
                    connection.sendall(b"N")
                connection.sendall(ready)
                connection.recv(1024)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer)
        thread.start()
        yield f"postgresql://sophia:{PASSWORD}@127.0.0.1:{listener.getsockname()[1]}/sophia"
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(5)


def test_an_old_server_is_named(run: Run, data: Path) -> None:
    with old_postgres() as url:
        ((status, detail, _),) = find(
            run, "ledger", SOPHIA_DATA_DIR=str(data), SOPHIA_STORE_URL=url
        )
    assert status == "error" and "it is PostgreSQL 14, and Sophia needs 15" in detail


def test_tables_that_may_not_be_read_are_not_called_damaged(
    run: Run, data: Path, url: str, postgres: PostgresServer
) -> None:
    postgres.execute("ALTER TABLE keys RENAME TO other", url.rpartition("/")[2])
    ((status, detail, fix),) = find(run, "ledger", SOPHIA_DATA_DIR=str(data), SOPHIA_STORE_URL=url)
    assert status == "error" and "cannot be read" in detail and ".recover" not in fix


def test_the_process_that_serves_is_named(run: Run, served: Served) -> None:
    where = {"SOPHIA_DATA_DIR": str(served.data), "SOPHIA_SANDBOX_ENABLED": "true"}
    ((status, detail, _),) = find(run, "serving", **where)
    assert status == "ok" and "serves from" in detail and "process " in detail


def test_a_full_disk_is_named(run: Run, data: Path) -> None:
    with full_disk():
        ((status, detail, fix),) = find(run, "data folder", SOPHIA_DATA_DIR=str(data))
    assert status == "error" and "cannot be written" in detail and "free some space" in fix


@pytest.mark.parametrize(
    ("then", "detail", "remedy"),
    [
        ("mount -o remount,ro disk &&", "read-only file system", "mount"),
        ("(head -c 1m /dev/zero > disk/other; true) &&", "no space left", "free some space"),
    ],
)
def test_a_disk_that_takes_nothing_is_named(
    data: Path, then: str, detail: str, remedy: str
) -> None:
    """The ledger on it is not called damaged."""
    mount = data.parent / "disk"
    mount.mkdir()
    command = f"mount -t tmpfs -o size=400k,mode=700 none {mount} && cp {data}/sophia.db {mount} && {then}"
    unshare = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    if subprocess.run([*unshare, f"mount -t tmpfs none {mount}"], check=False).returncode:
        pytest.skip("this machine mounts nothing for tests")
    done = subprocess.run(
        [*unshare, f"{command} exec {sys.executable} -m sophia doctor --json"],
        env=clean_environment() | KEY | {"SOPHIA_DATA_DIR": str(mount)},
        cwd=data.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    found = {row["subject"]: row for row in json.loads(done.stdout)}
    assert found["data folder"]["status"] == "error", done.stdout
    assert detail in found["data folder"]["detail"] and remedy in found["data folder"]["fix"]
    assert "damaged" not in found["ledger"]["detail"]


def test_a_clock_behind_the_newest_attempt_is_named(run: Run, data: Path) -> None:
    write_rows(data / "sophia.db", [intent(first_id_at(int(time.time() * 1000) + 3_600_000))])
    ((status, detail, fix),) = find(run, "clock", SOPHIA_DATA_DIR=str(data))
    assert status == "warning" and "s behind the newest row of the ledger (20" in detail
    assert detail.startswith(("3,6", "3,59"))
    assert "NTP" in fix


def test_a_file_of_an_older_release_has_no_leftovers_to_find(run: Run, data: Path) -> None:
    change(data, "UPDATE alembic_version SET version_num = '0001'", "DROP TABLE leases")
    assert find(run, "leases", SOPHIA_DATA_DIR=str(data)) == []
    assert find(run, "ledger", SOPHIA_DATA_DIR=str(data))[0][0] == "warning"
