"""The image is small in rights and complete in content, as far as its files show."""

import json
import re
from fnmatch import fnmatch
from pathlib import Path

import yaml

from sophia.config import Settings

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "Dockerfile").read_text()


def instructions() -> list[tuple[str, str]]:
    """Return each instruction with its arguments on one line, comments left out."""
    kept = "\n".join(line for line in TEXT.splitlines() if not line.lstrip().startswith("#"))
    joined = re.sub(r"\\\n\s*", "", kept)
    lines = [line.split(maxsplit=1) for line in joined.splitlines() if line.strip()]
    return [(name, arguments) for name, arguments in lines]


ALL = instructions()
LAST_STAGE = ALL[max(number for number, (name, _) in enumerate(ALL) if name == "FROM") :]


def arguments(wanted: str, within: list[tuple[str, str]] = LAST_STAGE) -> list[str]:
    return [arguments for name, arguments in within if name == wanted]


def test_every_base_has_a_version() -> None:
    """A tag without a version changes the interpreter from one build to the next."""
    bases = [base.split()[0] for base in arguments("FROM", ALL)]

    assert len(bases) > 1, "what builds does not belong into the image"
    assert set(bases) == {"python:3.12-slim"}
    assert "latest" not in TEXT


def test_files_come_from_the_checkout_only() -> None:
    """`ADD` would fetch addresses and unpack archives."""
    assert arguments("ADD", ALL) == []
    copied = {name for line in arguments("COPY", ALL) for name in line.split()[:-1]}
    names = {name for name in copied if not name.startswith(("--", "/"))}
    assert names == {"requirements.lock", "pyproject.toml", "README.md", "LICENSE", "NOTICE", "src"}
    assert [name for name in names if not (ROOT / name).exists()] == []
    assert [name for name in names if is_ignored(name)] == []
    assert [name for name in (".git", ".venv", "data", "tests") if not is_ignored(name)] == []


def is_ignored(name: str) -> bool:
    """Return whether .dockerignore keeps `name` out; the last line that matches decides."""
    ignored = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line.strip() and not line.startswith("#") and fnmatch(name, line.removeprefix("!")):
            ignored = not line.startswith("!")
    return ignored


def test_packages_are_pinned_and_leave_no_lists() -> None:
    """The lock has a hash for each package; apt's lists would stay in the layer for ever."""
    runs = arguments("RUN", ALL)
    installs = [part for run in runs for part in run.split("&&") if "pip install" in part]

    assert len(installs) == 2
    assert {"--require-hashes", "--no-deps", "requirements.lock"} <= set(installs[0].split())
    assert {"--no-index", "--no-deps", "/wheels/*.whl"} <= set(installs[1].split())
    for run in runs:
        if "apt-get" in run:
            assert "--no-install-recommends" in run
            assert "rm -rf /var/lib/apt/lists/*" in run


def test_the_process_has_no_rights_and_keeps_its_data() -> None:
    """Sophia runs under a number that is not root's; its data outlives the container."""
    assert arguments("USER") == ["10001:10001"]
    assert arguments("VOLUME") == ["/data"]
    (run,) = arguments("RUN")
    assert "--owner=10001" in run
    order = [name for name, _ in LAST_STAGE]
    assert order.index("RUN") < order.index("USER")


def test_it_serves_and_is_watched() -> None:
    """The settings that the image makes exist, and the check asks the port that is exposed."""
    assert [json.loads(line) for line in arguments("ENTRYPOINT")] == [["sophia"]]
    assert [json.loads(line) for line in arguments("CMD")] == [["serve"]]
    assert arguments("EXPOSE") == [str(Settings().server.port)]
    (check,) = arguments("HEALTHCHECK")
    assert f"http://127.0.0.1:{Settings().server.port}/health/live" in check
    program = json.loads(check[check.index("[") :])[2]
    compile(program, "HEALTHCHECK", "exec")
    variables = dict(pair.split("=") for line in arguments("ENV") for pair in line.split())
    assert (variables["SOPHIA_DATA_DIR"], variables["SOPHIA_SERVER_HOST"]) == ("/data", "0.0.0.0")
    reference = (ROOT / "docs" / "reference" / "settings.md").read_text()
    assert [name for name in variables if "SOPHIA" in name and f"`{name}`" not in reference] == []


def test_compose_serves_this_machine_only() -> None:
    """The port is not open to the network, the data has a volume, and no key is in the file."""
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())
    service = compose["services"]["sophia"]

    assert service["build"] == "."
    assert service["ports"] == ["127.0.0.1:8080:8080"]
    assert service["environment"] == ["OPENROUTER_API_KEY"]
    (volume,) = service["volumes"]
    name, _, folder = volume.partition(":")
    assert name in compose["volumes"]
    assert folder == "/data"
