"""Every program in examples/ runs against a Sophia, and its README lists it."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from clients import servers
from clients.servers import Gateway, Upstream

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
MAIN = ROOT / ".venvs" / "clients-main" / "bin"
OWN = ROOT / ".venvs" / "examples" / "bin"
NODE_MODULES = Path(__file__).with_name("node") / "node_modules"

# Each program, its command and the folder that comes first on its PATH.
PROGRAMS = {
    "openai_sdk.py": ("python", MAIN),
    "openai_sdk.mjs": ("node", None),
    "langchain_chat.py": ("python", OWN),
    "pydantic_ai_agent.py": ("python", MAIN),
    "litellm_sdk.py": ("python", MAIN),
    "llm_cli.sh": ("sh", OWN),
    "ai_sdk.mjs": ("node", None),
    "curl.sh": ("sh", None),
}
# Read by the program that it is mapped to.
READ_BY = {"llm_cli.yaml": "llm_cli.sh"}
# What is no example: the table, and what `npm install` writes.
OTHERS = {"README.md", "node_modules", "package.json", "package-lock.json"}
SHOW_THE_REASON = {"openai_sdk.py", "openai_sdk.mjs", "litellm_sdk.py", "ai_sdk.mjs", "curl.sh"}

QUESTION = "What does a router do?"
ANSWER = "It forwards packets."
COST = re.compile(r"\$\d\.\d{6}\b|\"cost_usd\":\d")
REASON = "expected quality"
MOST_LINES = 10


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with servers.upstream() as upstream:
        upstream.script({"text": ANSWER})
        yield upstream


@pytest.fixture(scope="module")
def gateway(upstream: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with servers.gateway(upstream, tmp_path_factory.mktemp("data")) as gateway:
        yield gateway


@pytest.mark.clients
@pytest.mark.timeout(180)  # some clients take long to import
@pytest.mark.parametrize("name", PROGRAMS)
def test_the_example_prints_answer_model_and_cost(
    gateway: Gateway, upstream: Upstream, tmp_path: Path, name: str
) -> None:
    """An example works as it stands, with the address and the key in the environment."""
    shutil.copytree(EXAMPLES, tmp_path / "examples", ignore=shutil.ignore_patterns("node_modules"))
    # Node looks for packages in the folders above a program, not in a variable.
    (tmp_path / "node_modules").symlink_to(NODE_MODULES)
    command, folder = PROGRAMS[name]
    path = os.pathsep.join([str(folder), os.environ["PATH"]]) if folder else os.environ["PATH"]

    ran = subprocess.run(
        [shutil.which(command, path=path) or command, f"examples/{name}"],
        cwd=tmp_path,
        env={**environment(gateway), "PATH": path},
        capture_output=True,
        text=True,
        timeout=150,
    )

    assert ran.returncode == 0, ran.stderr
    asked = upstream.last_body()
    assert asked["messages"] == [{"role": "user", "content": QUESTION}]
    assert ANSWER in ran.stdout
    assert asked["model"] in ran.stdout
    assert COST.search(ran.stdout), ran.stdout
    assert (REASON in ran.stdout) == (name in SHOW_THE_REASON)


def environment(gateway: Gateway) -> dict[str, str]:
    """Return the environment of a user, without the settings of this machine's Sophia."""
    inherited = {name: value for name, value in os.environ.items() if "SOPHIA" not in name}
    return {
        **inherited,
        "SOPHIA_BASE_URL": f"{gateway.url}/v1",
        "SOPHIA_API_KEY": gateway.key,
        "NO_PROXY": "localhost,127.0.0.1",
        # Otherwise the import of litellm asks a public host for newer prices.
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }


def test_every_file_is_run_and_in_the_table() -> None:
    """A file that no test runs, or that the table leaves out, does not stay."""
    files = {path.name for path in EXAMPLES.iterdir()} - OTHERS
    table = [
        row for row in (EXAMPLES / "README.md").read_text().splitlines() if row.startswith("|")
    ]
    listed = [name for row in table for name in re.findall(r"\]\(([\w.]+)\)", row)]

    assert files == PROGRAMS.keys() | READ_BY.keys()
    assert sorted(listed) == sorted(files)
    for name, program in READ_BY.items():
        assert name in (EXAMPLES / program).read_text()


@pytest.mark.parametrize("name", PROGRAMS)
def test_an_example_is_ten_lines(name: str) -> None:
    """Ten lines of code at most, which read the address and the key from the environment."""
    text = (EXAMPLES / name).read_text()
    code = re.sub(r'\A""".*?"""', "", text, flags=re.DOTALL)
    lines = [line for line in code.splitlines() if line.strip() and not re.match(r"#|//", line)]

    assert len(lines) <= MOST_LINES
    assert "SOPHIA_API_KEY" in text
    assert "SOPHIA_BASE_URL" in text
    assert "http://localhost:8080/v1" in text
