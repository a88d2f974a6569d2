"""The wheel is complete: installed alone, outside the checkout, it serves."""

import json
import os
import re
import subprocess
import sys
import urllib.request
import venv
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytestmark = [pytest.mark.packaging, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "sophia"
LOCK = ROOT / "requirements.lock"
ADDRESS = re.compile(r"http://localhost:\d+/v1")
KEY = re.compile(r"sk-sph-[\w-]+")
UNREACHABLE = re.compile(
    r"Failed to fetch|error sending request|client error \(Connect\)", re.IGNORECASE
)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty folder outside the checkout."""
    path = tmp_path_factory.mktemp("installed")
    assert ROOT not in path.parents
    return path


@pytest.fixture(scope="session")
def wheel(folder: Path) -> Path:
    """Build the wheel as an installation from the checkout would."""
    run([sys.executable, "-m", "pip", "wheel", str(ROOT), "--no-deps", "-w", "dist"], folder)
    (built,) = (folder / "dist").iterdir()
    return built


@pytest.fixture(scope="session")
def binaries(folder: Path, wheel: Path) -> Path:
    """Install the lock and the wheel into a new environment; return its folder of commands."""
    commands = new_environment(folder / "venv")
    pip = [str(commands / "python"), "-m", "pip", "install", "--quiet", "--no-deps"]
    run([*pip, "--require-hashes", "--requirement", str(LOCK)], folder)
    run([*pip, "--no-index", str(wheel)], folder)
    return commands


def new_environment(path: Path) -> Path:
    venv.create(path, with_pip=True)
    return path / "bin"


def run(command: list[str], folder: Path, **more: str) -> str:
    """Run a command to its end; return what it prints, and fail with all of it."""
    ran = subprocess.run(
        command, cwd=folder, env=environment() | more, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout


def environment() -> dict[str, str]:
    """Return the environment of a new user: no key, no settings, no way into the checkout."""
    ours = ("SOPHIA", "OPENROUTER", "PYTHON", "VIRTUAL_ENV")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    return {**kept, "NO_PROXY": "localhost,127.0.0.1", "COLUMNS": "100"}


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    """Each file under src/sophia is in it; lab, bench and tests are not."""
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if not name.endswith("/")}
        metadata = {name for name in packed if name.split("/")[0].endswith(".dist-info")}
        different = [
            name
            for name in packed - metadata
            if (path := SOURCE.parent / name).is_file() and path.read_bytes() != archive.read(name)
        ]

    assert packed - metadata == set(source_files())
    assert different == []
    assert {name.rpartition("/")[2] for name in metadata} >= {"LICENSE", "NOTICE", "METADATA"}
    assert {Path(name).suffix for name in packed} >= {".json", ".npz", ".yaml", ".typed"}


def source_files() -> Iterator[str]:
    for path in SOURCE.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path.relative_to(SOURCE.parent).as_posix()


def test_the_commands_run(binaries: Path, folder: Path) -> None:
    """The package is importable and installs its command."""
    (version,) = re.findall(
        r'^version = "(.*)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE
    )

    assert version in run([str(binaries / "sophia"), "--version"], folder)
    assert "serve" in run([str(binaries / "sophia"), "--help"], folder)
    assert "serve" in run([str(binaries / "python"), "-m", "sophia", "--help"], folder)
    code = "import sophia; print(sophia.__file__)"
    imported = Path(run([str(binaries / "python"), "-c", code], folder).strip())
    assert binaries.parent in imported.parents


def test_it_answers_from_an_empty_folder(binaries: Path, tmp_path: Path) -> None:
    """The start text has an address and a key that work, with no setting and no checkout."""
    with serving(binaries, tmp_path) as printed:
        address, key = ADDRESS.search(printed), KEY.search(printed)
        assert address, printed
        assert key, printed
        question = {"role": "user", "content": "Say hello in one sentence."}
        request = urllib.request.Request(
            f"{address[0]}/chat/completions",
            json.dumps({"model": "sophia/auto", "messages": [question]}).encode(),
            {"Authorization": f"Bearer {key[0]}", "Content-Type": "application/json"},
        )
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(request, timeout=60) as response:
            status, answer = response.status, json.load(response)

    assert status == 200
    assert answer["choices"][0]["message"]["content"]
    assert answer["sophia"]["model"] == answer["model"]
    assert answer["sophia"]["reason"]


@contextmanager
def serving(binaries: Path, folder: Path) -> Iterator[str]:
    """Serve in `folder`; yield the start text up to its last hint."""
    command = [str(binaries / "sophia"), "serve", "--port", "0"]
    log = folder / "log"
    unbuffered = {"PYTHONUNBUFFERED": "1", "SOPHIA_SERVER_LINGER_S": "0"}
    with (
        log.open("w") as errors,
        subprocess.Popen(
            command,
            cwd=folder,
            env=environment() | unbuffered,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as process,
    ):
        printed = ""
        try:
            for line in process.stdout or ():
                printed += line
                if line.startswith("Try it"):
                    break
            else:
                pytest.fail(printed + log.read_text())
            yield printed
        finally:
            process.terminate()


def test_uvx_runs_the_wheel(wheel: Path, folder: Path) -> None:
    """`uvx --from WHEEL sophia` needs no environment made beforehand."""
    commands = new_environment(folder / "uv")
    install = [str(commands / "python"), "-m", "pip", "install", "--quiet", "uv"]
    installed = subprocess.run(install, env=environment(), capture_output=True, text=True)
    if installed.returncode:
        pytest.skip(f"uv cannot be installed: {installed.stderr.strip()[-200:]}")
    # The lock's versions, so that a new release of a dependency does not decide.
    uvx = [str(commands / "uvx"), "--python", sys.executable, "--no-python-downloads"]
    uvx += ["--constraints", str(LOCK), "--from", str(wheel)]
    ran = subprocess.run(
        [*uvx, "sophia", "--help"],
        cwd=folder,
        env=environment() | {"UV_CACHE_DIR": str(folder / "cache"), "UV_SYSTEM_CERTS": "1"},
        capture_output=True,
        text=True,
    )
    if ran.returncode and UNREACHABLE.search(ran.stderr):
        pytest.skip(f"uv reaches no package index: {ran.stderr.strip()[-200:]}")
    assert ran.returncode == 0, ran.stderr
    assert "serve" in ran.stdout
