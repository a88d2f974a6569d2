"""`sophia doctor`: every fault has its line and the way to mend it."""

import json
import re
import socket
from pathlib import Path

from canned_answers import answering
from terminal import Run, Served


def _port(served: Served) -> str:
    found = re.search(r":(\d+)/", served.base_url)
    assert found is not None
    return found[1]


def test_a_running_sophia_is_well(served: Served, run: Run) -> None:
    """Exit code 0, and every line good, while Sophia serves with the sandbox."""
    ran = run("doctor", "--data-dir", str(served.data), SOPHIA_PORT=_port(served), COLUMNS="120")
    assert ran.code == 0, ran.out
    assert "✗" not in ran.out
    assert "ledger: intact" in ran.out
    assert "keys: 1 active" in ran.out
    assert "is ready" in ran.out


def test_a_new_machine_is_well_and_stays_untouched(run: Run, tmp_path: Path) -> None:
    """Looking makes no folder and no ledger."""
    ran = run("doctor", SOPHIA_PORT="0")
    assert ran.code == 0, ran.out
    assert list(tmp_path.iterdir()) == []


def test_wrong_settings_are_told_with_their_line(run: Run, tmp_path: Path) -> None:
    """The first line says what to correct; nothing else can be looked at."""
    (tmp_path / "sophia.yaml").write_text("server:\n  port: many\n")
    ran = run("doctor")
    assert ran.code == 1
    assert "✗ settings: sophia.yaml: line 2" in ran.out


def test_a_damaged_ledger_is_told(run: Run, tmp_path: Path) -> None:
    """A file that is no database fails the examination."""
    (tmp_path / "sophia.db").write_bytes(b"not a database" * 100)
    ran = run("doctor", "--data-dir", str(tmp_path), SOPHIA_PORT="0")
    assert ran.code == 1
    assert "✗ ledger" in ran.out
    assert ".recover" in ran.out


def test_an_open_data_folder_is_odd_but_works(run: Run, tmp_path: Path) -> None:
    """Others may read keys there: said, and not fatal."""
    folder = tmp_path / "sandbox"
    folder.mkdir()
    folder.chmod(0o755)
    ran = run("doctor", "--data-dir", str(tmp_path), SOPHIA_PORT="0")
    assert ran.code == 0, ran.out
    assert "! data folder" in ran.out
    assert "chmod 700" in ran.out


def test_a_data_folder_that_cannot_be_is_bad(run: Run, tmp_path: Path) -> None:
    """A file stands where the folder should."""
    (tmp_path / "file").write_text("")
    ran = run("doctor", "--data-dir", str(tmp_path / "file"), SOPHIA_PORT="0")
    assert ran.code == 1
    assert "✗ data folder" in ran.out


def test_a_port_of_another_program_is_told(run: Run) -> None:
    """Something that is not Sophia has the port."""
    with answering(200, "text/html", b"hello") as url:
        ran = run("doctor", SOPHIA_PORT=url.split(":")[2].partition("/")[0])
    assert ran.code == 1
    assert "taken by another program" in ran.out


def test_the_key_is_tried_and_never_shown(run: Run) -> None:
    """A refused key is bad, a clock that disagrees is odd, and the key stays secret."""
    with answering(401, "application/json", b"{}") as url:
        ran = run(
            "doctor", SOPHIA_PORT="0", OPENROUTER_API_KEY="sk-or-secret", OPENROUTER_BASE_URL=url
        )
    assert ran.code == 1
    assert "the key is refused" in ran.out
    assert "! clock" in ran.out
    assert "sk-or-secret" not in ran.out + ran.err


def test_an_upstream_that_is_away_is_told(run: Run) -> None:
    """The reason and the way on stand side by side; a proxy on the way is named."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
    ran = run(
        "doctor",
        SOPHIA_PORT="0",
        OPENROUTER_API_KEY="k",
        OPENROUTER_BASE_URL="http://nowhere.test/v1",
        http_proxy=f"http://user:hidden@127.0.0.1:{port}",
    )
    assert ran.code == 1
    assert f"through the proxy 127.0.0.1:{port}" in ran.out
    assert "hidden" not in ran.out


def test_every_upstream_and_its_key_and_models_are_checked(run: Run, tmp_path: Path) -> None:
    """Nothing is well while an upstream of one's own is away, has no key or lacks a model."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        away = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
    with answering(200, "application/json", b'{"data": [{"id": "served"}]}') as url:
        (tmp_path / "sophia.yaml").write_text(
            "upstreams:\n"
            f"- {{name: gpu, base_url: '{url}', models: [{{id: a/b, served_as: served}}]}}\n"
            f"- {{name: typo, base_url: '{url}', models: [{{id: a/c, served_as: other}}]}}\n"
            f"- {{name: team, base_url: '{away}', api_key_env: TEAM_KEY, models: [{{id: a/d}}]}}\n"
        )
        file = str(tmp_path / "sophia.yaml")
        ran = run("doctor", "--json", "--config", file, SOPHIA_PORT="0")
    assert ran.code == 1
    found = [
        (row["subject"], row["status"], row["detail"])
        for row in json.loads(ran.out)
        if row["subject"].rpartition(" ")[2] in {"gpu", "typo", "team"}
    ]
    assert [row[:2] for row in found] == [
        ("key of gpu", "ok"),
        ("upstream gpu", "ok"),
        ("key of typo", "ok"),
        ("upstream typo", "ok"),
        ("upstream typo", "warning"),
        ("key of team", "error"),
        ("upstream team", "error"),
    ]
    assert found[4][2] == "it does not list other"
    assert found[5][2] == "TEAM_KEY is not set"


def test_programs_get_the_findings_as_json(run: Run, run_process: Run) -> None:
    """The exit code is the same, and every finding has its status and subject."""
    ran = run_process("doctor", "--json", SOPHIA_PORT="0")
    assert ran.code == 0, ran.err
    findings = json.loads(ran.out)
    assert {"ok"} <= {finding["status"] for finding in findings} <= {"ok", "warning"}
    assert {"settings", "data folder", "SQLite", "port"} <= {row["subject"] for row in findings}
    assert json.loads(run("doctor", "--json", SOPHIA_PORT="many").out)[0]["status"] == "error"
