"""The command tree: its help, its version, shell completion, and where old spellings lead."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from terminal import Run

from sophia import __version__

COMMANDS = {
    (): "serve chat route keys models usage decisions policy feedback config doctor db "
    "migrate-store",
    ("keys",): "create list update revoke",
    ("models",): "list show refresh probe health",
    ("decisions",): "show verify",
    ("policy",): "show history rollback retrain compare",
    ("feedback",): "sources",
    ("config",): "check show",
    ("db",): "upgrade check",
}


@pytest.mark.parametrize(("group", "names"), COMMANDS.items())
def test_the_help_of_a_group_lists_its_commands(
    run: Run, group: tuple[str, ...], names: str
) -> None:
    """Exactly those, so a new command belongs in this table and in the reference."""
    ran = run(*group, "--help", COLUMNS="100")
    assert ran.code == 0, ran.err
    listed = re.findall(r"^│ ([\w-]+) ", ran.out.partition("Commands")[2], re.MULTILINE)
    assert listed == names.split()


def test_the_version_is_a_flag(run_process: Run) -> None:
    ran = run_process("--version")
    assert (ran.code, ran.out) == (0, f"{__version__}\n")


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("sophia ", COMMANDS[()]),
        ("sophia policy ", "show history rollback retrain compare"),
        ("sophia usage --", "--days --by --json --data-dir --config --help"),
    ],
)
def test_the_shell_completes_commands_and_options(typed: str, offered: str) -> None:
    """As bash asks for it; `sophia --install-completion` sets that up."""
    words = {"COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split(" ")) - 1)}
    done = subprocess.run(
        [Path(sys.executable).with_name("sophia")],
        env={**os.environ, "_SOPHIA_COMPLETE": "complete_bash", **words},
        capture_output=True,
        text=True,
        check=True,
    )
    assert sorted(done.stdout.split()) == sorted(offered.split())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("learn", "sophia policy retrain"),
        ("learn --json --data-dir x", "sophia policy retrain"),
        ("learn --arms --key-id k", "sophia policy show"),
        ("learn --list", "sophia policy history"),
        ("learn --rollback previous", "sophia policy rollback"),
        ("learn --rollback=3f2a", "sophia policy rollback"),
        ("learn --probe a/model --against b/model", "sophia models probe"),
        ("learn --channels", "sophia feedback sources"),
        ("learn --priors x.json", "sophia policy retrain"),
        ("learn --help", "sophia policy retrain"),
        ("replay", "sophia decisions verify"),
        ("replay dec-0000000000000000 --days 3", "sophia decisions verify"),
        ("replay --policy learned", "sophia policy compare"),
        ("replay --dial 3", "sophia policy compare --quality-bias"),
        ("replay --models a,b", "sophia policy compare --models"),
        ("eval --table x", "python -m lab.evaluate"),
        ("eval --ledger x", "sophia policy compare"),
        ("version", "sophia --version"),
        ("models", "sophia models list"),
        ("models --json", "sophia models list"),
        ("models --search gpt", "sophia models list"),
    ],
)
def test_an_old_spelling_names_the_new_one(run: Run, old: str, new: str) -> None:
    """In one line, with exit code 2, whatever options came with it."""
    ran = run(*old.split())
    assert ran.code == 2
    assert ran.out == "" and ran.err.count("\n") == 1
    assert f"`{new}`" in ran.err


@pytest.mark.parametrize(
    "command",
    [
        "keys list",
        "models list",
        "policy history",
        "policy show",
        "feedback sources",
        "config show",
    ],
)
def test_every_command_that_prints_data_prints_json(
    run_process: Run, tmp_path: Path, command: str
) -> None:
    """Also in a data folder without anything in it; each of them from a cold start."""
    ran = run_process(*command.split(), "--json", "--data-dir", str(tmp_path / "data"))
    assert ran.code == 0, ran.err
    assert isinstance(json.loads(ran.out), list | dict)


def test_wrong_settings_end_every_command_alike(run: Run, tmp_path: Path) -> None:
    (tmp_path / "sophia.yaml").write_text("server:\n  port: many\n")
    for command in ("keys list", "policy history", "usage", "config show", "serve"):
        ran = run(*command.split())
        assert ran.code == 2, command
        assert ran.err.startswith("sophia.yaml: line 2: `server.port`"), command
