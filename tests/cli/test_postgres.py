"""The commands on a store of a PostgreSQL server, and the way there from SQLite's file."""

import json
import subprocess
import time
from contextlib import closing
from pathlib import Path

import pytest
from terminal import SOPHIA, Run, clean_environment

from logged_decisions import fill
from postgres_server import PASSWORD, PostgresServer
from sophia.adapters.store.databases.address import StoreAddress
from sophia.adapters.store.folder_lock import lock_for_serving
from sophia.adapters.store.schema import metadata

DAY_MS = 86_400_000
KEY = {"OPENROUTER_API_KEY": "sk-or-test", "OPENROUTER_BASE_URL": "http://127.0.0.1:9/v1"}


@pytest.fixture
def url(postgres: PostgresServer) -> str:
    return postgres.create_database(empty=True)


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with 1,200 decisions of the last days, scored."""
    folder = tmp_path_factory.mktemp("ledger")
    begun = int(time.time() * 1000) - 2 * DAY_MS + 60_000
    fill(folder / "sophia.db", begun, 1200, 0.9, ("learned",), 2 * DAY_MS // 1200)
    return folder


def tables(address: StoreAddress) -> dict[str, list[tuple[object, ...]]]:
    with closing(address.open_reader()) as database:
        return {
            name: sorted(database.read(f'SELECT * FROM "{name}"'), key=repr)
            for name in metadata.tables
        }


def test_a_store_moves_to_a_server_and_back_and_every_report_stays(
    run: Run, ledger: Path, url: str, tmp_path: Path
) -> None:
    """Nothing is lost, and each command answers as it did."""
    made = run("keys", "create", "--name", "moved", "--data-dir", str(ledger))
    assert made.code == 0, made.err
    ran = run("migrate-store", "--from", str(ledger), "--to", url)
    assert ran.code == 0, ran.err
    assert PASSWORD not in ran.out + ran.err
    counts = {line.split()[0]: line.split()[1:] for line in ran.out.splitlines() if "," in line}
    assert counts["intents"] == counts["outcomes"] == ["1,200", "1,200"]
    back = tmp_path / "back"
    ran = run("migrate-store", "--from", url, "--to", str(back))
    assert ran.code == 0, ran.err
    before = tables(StoreAddress(ledger / "sophia.db"))
    assert tables(StoreAddress(back / "sophia.db")) == before
    assert (
        before["keys"]
        and before["lessons"]
        and before["changes"]
        and len(before["outcomes"]) == 1200
    )
    for command in (
        ("usage", "--by", "key"), ("usage", "--by", "model"), ("usage", "--by", "day"),
        ("keys", "list"), ("policy", "compare", "--policy", "model:a/cheap"),
    ):  # fmt: skip
        where = ("--json", "--data-dir", str(ledger))
        file = run(*command, *where, **KEY)
        server = run(*command, *where, SOPHIA_STORE_URL=url, **KEY)
        assert (file.code, server.code) == (0, 0), server.err
        assert json.loads(server.out) == json.loads(file.out), command


def test_a_target_with_rows_is_refused_and_stays(run: Run, ledger: Path, url: str) -> None:
    assert run("migrate-store", "--from", str(ledger), "--to", url).code == 0
    before = tables(StoreAddress(Path(), url))
    ran = run("migrate-store", "--from", str(ledger), "--to", url)
    assert ran.code == 2 and "is not empty" in ran.err and PASSWORD not in ran.err
    assert tables(StoreAddress(Path(), url)) == before


def test_a_source_that_is_served_from_is_refused(
    run: Run, ledger: Path, url: str, postgres: PostgresServer, tmp_path: Path
) -> None:
    """Also one that a killed process has left, and one that another machine uses."""
    with lock_for_serving(ledger):
        ran = run("migrate-store", "--from", str(ledger), "--to", url)
    assert ran.code == 2 and "another Sophia serves" in ran.err
    left = ledger / "journal" / "0" / "00000001.journal"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"")
    ran = run("migrate-store", "--from", str(ledger), "--to", url)
    left.unlink()
    assert ran.code == 2 and "stop every Sophia" in ran.err
    assert run("migrate-store", "--from", str(ledger), "--to", url).code == 0
    postgres.execute("INSERT INTO workers VALUES (3, 'token', 1)", url.rpartition("/")[2])
    ran = run("migrate-store", "--from", url, "--to", str(tmp_path / "back"))
    assert ran.code == 2 and "stop every Sophia" in ran.err


def test_a_copy_that_fails_leaves_no_row(
    run: Run, ledger: Path, url: str, postgres: PostgresServer
) -> None:
    """The last table with rows fails, after all others were written."""
    name = url.rpartition("/")[2]
    assert run("db", "upgrade", SOPHIA_STORE_URL=url, **KEY).code == 0
    postgres.execute("ALTER TABLE outcomes ADD CHECK (false)", name)
    ran = run("migrate-store", "--from", str(ledger), "--to", url)
    assert ran.code != 0 and "Nothing was copied" in ran.err
    assert not any(tables(StoreAddress(Path(), url)).values())


def test_the_database_is_created_and_checked(run: Run, url: str) -> None:
    ran = run("db", "check", SOPHIA_STORE_URL=url, **KEY)
    assert ran.code == 1 and "schema none" in ran.err and "db upgrade" in ran.err
    assert run("usage", SOPHIA_STORE_URL=url, **KEY).code == 1
    ran = run("db", "upgrade", SOPHIA_STORE_URL=url, **KEY)
    assert ran.code == 0 and "schema 0004" in ran.out
    ran = run("db", "check", SOPHIA_STORE_URL=url, **KEY)
    assert ran.code == 0 and "intact" in ran.out and PASSWORD not in ran.out
    ran = run("doctor", SOPHIA_STORE_URL=url, SOPHIA_PORT="0", **KEY)
    assert "ledger: on postgresql://127.0.0.1" in ran.out and PASSWORD not in ran.out


def test_the_file_can_be_checked_as_well(run: Run) -> None:
    assert run("db", "check", **KEY).code == 1
    assert run("db", "upgrade", **KEY).code == 0
    assert "schema 0004" in run("db", "check", **KEY).out


@pytest.mark.parametrize(
    "command", [("usage",), ("keys", "list"), ("doctor",), ("db", "check"), ("serve",)]
)
def test_a_server_that_is_away_is_named_without_its_password(run: Run, command: str) -> None:
    away = f"postgresql://sophia:{PASSWORD}@127.0.0.1:9/sophia"
    ran = run(*command, SOPHIA_STORE_URL=away, SOPHIA_PORT="0", **KEY)
    assert ran.code in (1, 2)
    text = ran.out + ran.err
    assert "postgresql://127.0.0.1:9/sophia" in text and "Start the server" in text
    assert PASSWORD not in text and "Traceback" not in text


def test_settings_are_shown_without_the_password(run: Run, url: str) -> None:
    for form in ((), ("--json",)):
        ran = run("config", "show", *form, SOPHIA_STORE_URL=url, **KEY)
        assert ran.code == 0 and "postgresql://127.0.0.1" in ran.out
        assert PASSWORD not in ran.out + ran.err
    ran = run("config", "show", SOPHIA_STORE_URL=f"mysql://root:{PASSWORD}@h/d", **KEY)
    assert ran.code == 2 and "SOPHIA_STORE_URL" in ran.err and PASSWORD not in ran.err


def test_the_sandbox_writes_nothing_into_a_shared_store(run: Run, url: str) -> None:
    """Without a key, `serve` simulates, and keeps that in its own folder."""
    ran = run("config", "show", "--json", SOPHIA_STORE_URL=url, SOPHIA_SANDBOX_ENABLED="true")
    settings = json.loads(ran.out)["settings"]
    assert settings["store"]["url"] == "" and settings["data_dir"].endswith("sandbox")


def test_a_worker_that_others_took_for_dead_ends_with_a_code_of_its_own(
    url: str, postgres: PostgresServer, tmp_path: Path
) -> None:
    """A supervisor starts it again, with another number."""
    quick = KEY | {"SOPHIA_SERVER_LINGER_S": "0", "SOPHIA_CATALOGUE_REFRESH_HOURS": "0"}
    command = ("serve", "--port", "0", "--store", url, "--data-dir", str(tmp_path / "data"))
    with subprocess.Popen(
        [*SOPHIA, *command],
        env=clean_environment() | quick,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        for line in process.stdout:
            if line.startswith("Try it"):
                break
        postgres.execute("UPDATE workers SET token = ''", url.rpartition("/")[2])
        assert process.wait(20) == 75
        assert "took this worker for dead" in process.stderr.read()
