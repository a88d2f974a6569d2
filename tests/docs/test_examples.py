"""The examples in the documents run: against a real Sophia, with the sandbox behind it."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sophia.catalogue.snapshot import load_bundled_catalogue
from sophia.routing.rules.parse import read_rules

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "docs" / "tutorial" / "first-answer.md",
    ROOT / "docs" / "how-to" / "keys-and-budgets.md",
    ROOT / "docs" / "how-to" / "cascade.md",
    ROOT / "docs" / "how-to" / "sandbox.md",
]
BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
RULES = re.compile(r"^```yaml\n# routing-rules.yaml\n(.*?)^```$", re.MULTILINE | re.DOTALL)
KEY = re.compile(r"sk-sph-[\w-]+")
BINARIES = Path(sys.executable).parent


def examples() -> list[object]:
    """Return each runnable block with the language it is in."""
    return [
        pytest.param(language, code, id=f"{path.stem}-{number}-{language}")
        for path in DOCUMENTS
        for number, (language, code) in enumerate(BLOCK.findall(path.read_text()), 1)
    ]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Yield the environment of a newcomer's second terminal, while Sophia serves in the first."""
    folder = tmp_path_factory.mktemp("newcomer")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SOPHIA")}
    inherited.pop("OPENROUTER_API_KEY", None)
    known = {
        **inherited,
        "PATH": f"{BINARIES}{os.pathsep}{os.environ['PATH']}",
        "SOPHIA_DATA_DIR": str(folder / "data"),
        "SOPHIA_SANDBOX_LOCAL_MODEL": "false",
        "SOPHIA_SANDBOX_SPEED": "0",
        "SOPHIA_SERVER_LINGER_S": "0",
        "NO_PROXY": "localhost,127.0.0.1",
        "PYTHONUNBUFFERED": "1",
    }
    command = [str(BINARIES / "sophia"), "serve", "--port", "0"]
    server = subprocess.Popen(
        command, cwd=folder, env=known, text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    try:
        base, key, sandbox = welcome(server)
        yield {**known, "SOPHIA_API_KEY": key, "SOPHIA_BASE_URL": base, "SANDBOX": sandbox}
    finally:
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=20)


def welcome(server: "subprocess.Popen[str]") -> tuple[str, str, str]:
    """Return the address, the key and the sandbox's address that a first start prints."""
    said = ""
    for line in server.stdout or ():
        said += line
        if "curl" in line:
            break
    address = re.search(r"http://localhost:\d+/v1", said)
    key = KEY.search(said)
    sandbox = re.search(r"the sandbox at (http://[\d.:]+)", said)
    assert address and key and sandbox, said
    return address[0], key[0], sandbox[1]


@pytest.mark.parametrize(("language", "code"), examples())
def test_the_example_runs(
    environment: dict[str, str], tmp_path: Path, language: str, code: str
) -> None:
    """What a document shows works as it stands."""
    code = code.replace("http://localhost:8080/v1", environment["SOPHIA_BASE_URL"])
    shell = ["bash", "-euo", "pipefail", "-c", code]
    command = [sys.executable, "-c", code] if language == "python" else shell
    result = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )

    assert result.returncode == 0, result.stderr
    assert result.stdout.strip()
    assert '"error"' not in result.stdout
    # A page that scripts an answer for a cascade shows its retry.
    assert '"steps"' not in code or "cascade" not in code or '"attempts":2' in result.stdout


def test_the_rules_of_the_how_to_are_accepted() -> None:
    """A rules file that a document shows can be used as it stands."""
    (text,) = RULES.findall((ROOT / "docs" / "how-to" / "routing-rules.md").read_text())

    assert [rule.name for rule in read_rules(text, load_bundled_catalogue()).rules] == [
        "german",
        "long-documents",
    ]
