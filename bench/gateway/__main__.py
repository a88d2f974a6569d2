"""Run the gateway benchmark: set up, measure, report. `python -m bench.gateway --help`."""

import argparse
import datetime
import json
import sys
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from bench.gateway import paths
from bench.gateway.machine import describe_machine, list_versions
from bench.gateway.page import put_section
from bench.gateway.phases import PHASES
from bench.gateway.picture import print_chart, render_svg
from bench.gateway.process import BenchmarkError, can_raise_priority, select_cores
from bench.gateway.report import (
    Result,
    format_number,
    list_missed_goals,
    print_report,
    render_section,
    write_json,
)
from bench.gateway.run import Record, Settings, run
from bench.gateway.setup import SetupError, plan_installation
from bench.gateway.summary import summarise
from bench.gateway.targets import ALL, QUICK, Target, build_targets

QUICK_ROUNDS, QUICK_SECONDS = 3, 1.5


def parse(arguments: list[str]) -> argparse.Namespace:
    """Parse the command line and check the names of targets and phases."""
    parser = argparse.ArgumentParser(prog="python -m bench.gateway", description=__doc__)
    parser.add_argument("--rounds", type=int, help="interleaved rounds (default 5)")
    parser.add_argument(
        "--peer-rounds", type=int, default=3, help="rounds that include other LLM gateways"
    )
    parser.add_argument("--seconds", type=float, help="length of a full window (default 3)")
    parser.add_argument(
        "--targets", type=lambda text: parse_names(text, ALL), help=f"of {', '.join(ALL)}"
    )
    parser.add_argument(
        "--phases",
        type=lambda text: parse_names(text, tuple(PHASES)),
        default=tuple(PHASES),
        help=f"of {', '.join(PHASES)}",
    )
    parser.add_argument("--skip-setup", action="store_true", help="skip installing and building")
    parser.add_argument(
        "--quick",
        action="store_true",
        help="nginx and Sophia only, short windows, no files written",
    )
    parser.add_argument(
        "--check", action="store_true", help="exit with 1 when a measured goal is missed"
    )
    parser.add_argument(
        "--output", type=Path, help="write the JSON here, and neither page nor chart"
    )
    options = parser.parse_args(arguments)
    options.rounds = options.rounds or (QUICK_ROUNDS if options.quick else 5)
    options.seconds = options.seconds or (QUICK_SECONDS if options.quick else 3.0)
    options.targets = options.targets or (QUICK if options.quick else ALL)
    return options


def parse_names(text: str, known: tuple[str, ...]) -> tuple[str, ...]:
    """Split comma-separated names and check them against `known`."""
    names = tuple(name for name in text.split(",") if name)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not among {', '.join(known)}")
    return names


def install_requirements(names: tuple[str, ...], console: Console) -> dict[str, str]:
    """Install the targets' requirements; return the reason for each that failed."""
    missing: dict[str, str] = {}
    for name, install in plan_installation(
        {target.needs for target in build_targets(names)}
    ).items():
        with console.status(f"setting up {name}"):
            try:
                install()
            except SetupError as problem:
                missing[name] = str(problem)
                console.print(f"[yellow]{name}[/]: {problem}", highlight=False)
    return missing


def find_missing_requirement(target: Target, failures: dict[str, str]) -> str | None:
    """Return why a target cannot be measured, if so; the TLS upstream always needs nginx."""
    return failures.get(target.needs) or (failures.get("nginx") if target.tls else None)


def measure(targets: list[Target], settings: Settings, console: Console) -> list[Record]:
    """Run all rounds with a progress bar and one line per finished target."""
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
        console=console,
    ) as progress:  # fmt: skip
        peers = sum(target.kind == "peer" for target in targets)
        rounds = min(settings.peer_rounds, settings.rounds)
        total = settings.rounds * (len(targets) - peers) + rounds * peers
        task = progress.add_task("measuring", total=total)

        def on_record(record: Record) -> None:
            progress.advance(task)
            console.print(format_record(record), highlight=False)

        return run(targets, settings, on_record)


def format_record(record: Record) -> str:
    """Return one line about a record for the console."""
    if record.problem:
        return f"[red]{record.round + 1} {record.target}: {record.problem}[/]"
    windows = "  ".join(
        f"{name} {format_number(window['rps'])}/s"
        + (f" {format_number(window['cpu_us'])} µs" if "cpu_us" in window else "")
        + (f" [red]{window['errors']:.0f} errors[/]" if window["errors"] else "")
        for name, window in record.windows.items()
    )
    return f"{record.round + 1} {record.target:<14} {windows}"


def main(arguments: list[str]) -> int:
    """Return 0; 1 if Sophia could not be measured or `--check` finds a missed goal."""
    options, console = parse(arguments), Console()
    if not console.is_terminal:
        console = Console(width=120)
    if sys.platform != "linux":
        console.print("the gateway benchmark needs Linux: it reads the scheduler's statistics")
        return 1
    failures = {} if options.skip_setup else install_requirements(options.targets, console)
    if "load generator" in failures:
        return 1
    missing = {
        target.name: why
        for target in build_targets(options.targets)
        if (why := find_missing_requirement(target, failures))
    }
    targets = [target for target in build_targets(options.targets) if target.name not in missing]
    if not can_raise_priority():
        console.print("not root: priorities are unchanged, so stop other work on this machine")
    began = datetime.datetime.now(datetime.UTC)
    try:
        settings = Settings(
            options.rounds, options.seconds, options.phases, options.peer_rounds, select_cores()
        )
        records = measure(targets, settings, console)
    except BenchmarkError as problem:
        console.print(f"[red]{problem}[/]")
        return 1
    missing |= {record.target: record.problem for record in records if record.problem}
    over: dict[str, list[str]] = {}
    for record in records:
        if record.over:
            over[record.target] = sorted({*over.get(record.target, []), *record.over})
    result = Result(
        made=f"{began:%Y-%m-%d}",
        command=format_command(options),
        settings={"rounds": options.rounds, "peer_rounds": min(options.peer_rounds, options.rounds),
                  "seconds": options.seconds, "phases": list(options.phases), "priority_lifted": can_raise_priority()},
        machine=describe_machine(), versions=list_versions({target.needs for target in targets}), targets=targets,
        summary=summarise(targets, records), over=over, missing=missing,
    )  # fmt: skip
    print_report(result, console)
    print_chart(result, console)
    save(result, records, options)
    unmeasured = any(name.startswith("sophia") for name in result.missing)
    return 1 if unmeasured or (options.check and list_missed_goals(result)) else 0


def format_command(options: argparse.Namespace) -> str:
    """Return the command that repeats a run, without its output options."""
    parts = ["python -m bench.gateway"]
    if options.quick:
        parts.append("--quick")
    if options.targets != (QUICK if options.quick else ALL):
        parts.append(f"--targets {','.join(options.targets)}")
    if options.phases != tuple(PHASES):
        parts.append(f"--phases {','.join(options.phases)}")
    return " ".join([*parts, f"--rounds {options.rounds}", f"--seconds {options.seconds:g}"])


def save(result: Result, records: list[Record], options: argparse.Namespace) -> None:
    """Write the result; --quick and --output leave the committed files unchanged."""
    paths.RUN.mkdir(parents=True, exist_ok=True)
    (paths.RUN / "gateway-rounds.json").write_text(
        json.dumps([asdict(record) for record in records], indent=1)
    )
    if options.output:
        write_json(result, options.output)
    elif not options.quick:
        write_json(result, paths.RESULTS / "gateway.json")
        paths.REFERENCE.parent.mkdir(parents=True, exist_ok=True)
        paths.PICTURE.write_text(render_svg(result))
        put_section(
            paths.REFERENCE, "gateway", "The gateway", render_section(result, paths.PICTURE.name)
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
