"""`sophia config check` and `sophia config show`."""

import json
from pathlib import Path

import pytest
import yaml
from terminal import Run

FILE = """
server: {port: 9000}
upstreams:
- name: local
  base_url: http://127.0.0.1:1/v1
  api_key: sk-very-secret
  models: [{id: me/mine}]
"""


def test_valid_settings_pass_and_nothing_is_written(run: Run, tmp_path: Path) -> None:
    assert run("config", "check").code == 0
    told = json.loads(run("config", "check", "--json").out)
    assert told == {"valid": True, "errors": []}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("server:\n  port: many\n", "line 2: `server.port`"),
        ("servers: {}\n", "there is no setting `servers`"),
        ("routing: {fallback_models: [no/such]}\n", "there is no model 'no/such'"),
        ("routing: {rules: nowhere.yaml}\n", "nowhere.yaml"),
        ("learning: {judge: {share: 0.1, models: [no/such]}}\n", "learning.judge.models"),
        ("a: [\n", "expected YAML"),
    ],
)
def test_what_cannot_be_used_is_named(run: Run, tmp_path: Path, text: str, message: str) -> None:
    """Exit code 2, in words and as JSON."""
    (tmp_path / "sophia.yaml").write_text(text)
    ran = run("config", "check")
    assert ran.code == 2 and message in ran.err
    ran = run("config", "check", "--json")
    told = json.loads(ran.out)
    assert ran.code == 2 and not told["valid"] and message in told["errors"][0]


def test_a_wrong_variable_is_named(run: Run) -> None:
    ran = run("config", "check", SOPHIA_PORT="many")
    assert ran.code == 2
    assert "environment variable SOPHIA_PORT" in ran.err


def test_the_effective_settings_can_be_used_as_a_file(run: Run, tmp_path: Path) -> None:
    """The variable wins over the file, and both are named."""
    (tmp_path / "sophia.yaml").write_text(FILE)
    ran = run("config", "show", SOPHIA_SERVER_HOST="0.0.0.0")
    assert ran.code == 0, ran.err
    assert ran.out.startswith("# file: sophia.yaml; variables: SOPHIA_SERVER_HOST\n")
    tree = yaml.safe_load(ran.out)
    assert (tree["server"]["host"], tree["server"]["port"]) == ("0.0.0.0", 9000)
    (tmp_path / "again.yaml").write_text(ran.out)
    again = yaml.safe_load(run("config", "show", "--config", "again.yaml").out)
    assert again == tree
    told = json.loads(run("config", "show", "--json", SOPHIA_SERVER_HOST="0.0.0.0").out)
    assert told["settings"] == tree
    assert (told["file"], told["variables"]) == ("sophia.yaml", ["SOPHIA_SERVER_HOST"])


def test_secrets_are_masked(run: Run, tmp_path: Path) -> None:
    (tmp_path / "sophia.yaml").write_text(FILE)
    for more in ((), ("--json",)):
        ran = run("config", "show", *more)
        assert "***" in ran.out and "sk-very-secret" not in ran.out + ran.err
