"""`sophia doctor`: check everything Sophia needs, and say how to fix what is wrong."""

import asyncio
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import typer
from rich.padding import Padding
from rich.text import Text

from sophia.cli.config_file import find_settings_file, load_command_settings
from sophia.cli.doctor_machine import DoctorFinding, check_machine
from sophia.cli.doctor_network import check_network
from sophia.cli.doctor_store import check_store
from sophia.cli.options import ConfigFile, DataDir, Json
from sophia.cli.terminal import build_console, print_json, strip_control_characters
from sophia.core.errors import ConfigError

_SYMBOLS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "error": ("✗", "red")}


def doctor(json: Json = False, data_dir: DataDir = None, config: ConfigFile = None) -> None:
    """Check key, upstream, clock, store, port and data folder, and say how to fix them.

    Exits with 1 when something does not work.
    """
    findings = []
    for finding in _run_checks(config, data_dir):
        findings.append(finding)
        if not json:
            _print_finding(finding)
    errors = sum(finding.status == "error" for finding in findings)
    warnings = sum(finding.status == "warning" for finding in findings)
    if json:
        print_json([asdict(finding) for finding in findings])
    else:
        build_console().print(_summary(errors, warnings))
    raise typer.Exit(1 if errors else 0)


def _run_checks(config: Path | None, data_dir: str | None) -> Iterator[DoctorFinding]:
    try:
        settings = load_command_settings(config, data_dir)
    except ConfigError as error:
        fix = "correct that, then run `sophia doctor` again for the rest"
        yield DoctorFinding("error", "settings", str(error), fix)
        return
    file = find_settings_file(config)
    source = f"{file} is valid" if file else "no file; defaults and the environment"
    yield DoctorFinding("ok", "settings", source)
    yield from check_machine(settings, os.environ)
    yield from check_store(settings)
    with build_console(stderr=True).status("Asking the upstream …"):
        findings = asyncio.run(check_network(settings, os.environ))
    yield from findings


def _print_finding(finding: DoctorFinding) -> None:
    symbol, style = _SYMBOLS[finding.status]
    line = Text.assemble((symbol, style), f" {finding.subject}: ", style="")
    line.append(strip_control_characters(finding.detail))
    build_console().print(line)
    if finding.fix:
        build_console().print(Padding(Text(f"→ {finding.fix}", style="dim"), (0, 0, 0, 4)))


def _summary(errors: int, warnings: int) -> Text:
    if errors:
        more = f", {warnings} to look at." if warnings else "."
        return Text(f"\n{errors} to fix{more}", style="red")
    if warnings:
        return Text(f"\nIt works; {warnings} to look at.", style="yellow")
    return Text("\nAll is well.", style="green")
