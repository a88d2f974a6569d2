"""`sophia doctor`: look at everything Sophia stands on, and say how to mend what is wrong."""

import asyncio
import os
from pathlib import Path

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from sophia.cli import machine, network
from sophia.cli.finding import Finding, State
from sophia.cli.screen import console, printable
from sophia.cli.settings_file import read
from sophia.config import ConfigError, Settings

_MARKS: dict[State, tuple[str, str]] = {
    "good": ("✓", "green"),
    "odd": ("!", "yellow"),
    "bad": ("✗", "red"),
}
_INDENT = 4


def examine(config: Path | None, data_dir: str | None) -> int:
    """Print the list and return the exit code: 1 when something must be mended, else 0."""
    paper = console()
    try:
        settings = read(config, os.environ, {("data_dir",): data_dir})
    except ConfigError as error:
        mend = "correct that, then run `sophia doctor` again for the rest"
        _print(paper, Finding("bad", "settings", str(error), mend))
        return 1
    found = [Finding("good", "settings", _source(config))]
    _print(paper, found[0])
    for finding in machine.look(settings, os.environ):
        _print(paper, finding)
        found.append(finding)
    with console(stderr=True).status("Asking the upstream …"):
        found += (asked := _network(settings))
    for finding in asked:
        _print(paper, finding)
    bad = sum(finding.state == "bad" for finding in found)
    odd = sum(finding.state == "odd" for finding in found)
    paper.print(_summary(bad, odd))
    return 1 if bad else 0


def _network(settings: Settings) -> list[Finding]:
    return asyncio.run(network.look(settings, os.environ))


def _source(config: Path | None) -> str:
    named = config or os.environ.get("SOPHIA_CONFIG") or "sophia.yaml"
    if Path(named).exists():
        return f"{named} is valid"
    return "no file; defaults and the environment"


def _print(paper: Console, finding: Finding) -> None:
    mark, style = _MARKS[finding.state]
    line = Text.assemble((mark, style), f" {finding.what}: ", style="")
    line.append(printable(finding.seen))
    paper.print(line)
    if finding.mend:
        paper.print(Padding(Text(f"→ {finding.mend}", style="dim"), (0, 0, 0, _INDENT)))


def _summary(bad: int, odd: int) -> Text:
    if bad:
        return Text(f"\n{bad} to mend" + (f", {odd} to look at." if odd else "."), style="red")
    if odd:
        return Text(f"\nIt works; {odd} to look at.", style="yellow")
    return Text("\nAll is well.", style="green")
