"""The first start: an address that is taken costs nothing, least of all the only look at a key."""

import socket
import subprocess
from pathlib import Path

from terminal import SOPHIA, Run, clean_environment

QUICK = {"SOPHIA_SANDBOX_SPEED": "0", "SOPHIA_SANDBOX_LOCAL_MODEL": "false"}


def first_words(folder: Path) -> str:
    """Start on a free port and return what is said until it serves."""
    process = subprocess.Popen(
        [*SOPHIA, "serve", "--port", "0", "--data-dir", str(folder)],
        env=clean_environment() | QUICK,
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    said = ""
    try:
        for line in process.stdout:
            said += line
            if line.startswith("Try it"):
                break
    finally:
        process.terminate()
        process.wait(20)
        process.stdout.close()
    return said


def test_a_taken_port_leaves_the_first_start_to_the_next_one(run: Run, tmp_path: Path) -> None:
    data = tmp_path / "data"
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        ran = run("serve", "--host", "127.0.0.1", "--port", str(port), "--data-dir", str(data), **QUICK)
    assert ran.code == 2
    assert f"cannot listen on 127.0.0.1:{port}" in ran.err
    assert "`sophia serve --port N` takes another" in ran.err
    assert "key" not in ran.out and not (data / "admin.key").exists()
    said = first_words(data)
    assert "Your first key, shown this once: " in said and (data / "admin.key").exists()
