"""The gateway benchmark in one go: set up, measure, report. `python -m bench.gateway --help`."""

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

from bench.gateway import places
from bench.gateway.machine import describe_machine, versions
from bench.gateway.page import put_section
from bench.gateway.phases import PHASES
from bench.gateway.picture import draw, svg
from bench.gateway.process import Unable, cores, may_lift
from bench.gateway.report import Result, markdown, missed, number, show, write_json
from bench.gateway.run import Record, Settings, run
from bench.gateway.setup import CannotInstall, installers
from bench.gateway.summary import summarise
from bench.gateway.targets import ALL, QUICK, Target, build

QUICK_ROUNDS, QUICK_SECONDS = 3, 1.5


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line. Names of targets and phases are checked here."""
    parser = argparse.ArgumentParser(prog="python -m bench.gateway", description=__doc__)
    parser.add_argument("--rounds", type=int, help="interleaved rounds (default 5)")
    parser.add_argument("--peer-rounds", type=int, default=3, help="rounds in which other LLM gateways take part")
    parser.add_argument("--seconds", type=float, help="length of a full window (default 3)")
    parser.add_argument("--targets", type=lambda text: names_of(text, ALL), help=f"of {', '.join(ALL)}")
    parser.add_argument(
        "--phases", type=lambda text: names_of(text, tuple(PHASES)), default=tuple(PHASES), help=f"of {', '.join(PHASES)}"
    )
    parser.add_argument("--skip-setup", action="store_true", help="install and build nothing")
    parser.add_argument("--quick", action="store_true", help="nginx and Sophia only, short windows, written nowhere")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a measured goal is missed")
    parser.add_argument("--output", type=Path, help="write the JSON here, and no page or picture")
    options = parser.parse_args(arguments)
    options.rounds = options.rounds or (QUICK_ROUNDS if options.quick else 5)
    options.seconds = options.seconds or (QUICK_SECONDS if options.quick else 3.0)
    options.targets = options.targets or (QUICK if options.quick else ALL)
    return options


def names_of(text: str, known: tuple[str, ...]) -> tuple[str, ...]:
    """Comma-separated names, in the order given."""
    names = tuple(name for name in text.split(",") if name)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: not among {', '.join(known)}")
    return names


def set_up(names: tuple[str, ...], console: Console) -> dict[str, str]:
    """Install what the targets need; why each thing is missing that could not be installed."""
    missing: dict[str, str] = {}
    for name, install in installers({target.needs for target in build(names)}).items():
        with console.status(f"setting up {name}"):
            try:
                install()
            except CannotInstall as problem:
                missing[name] = str(problem)
                console.print(f"[yellow]{name}[/]: {problem}", highlight=False)
    return missing


def lacking(target: Target, refused: dict[str, str]) -> str | None:
    """Why a target cannot be measured; the TLS upstream needs nginx whatever the gateway is."""
    return refused.get(target.needs) or (refused.get("nginx") if target.tls else None)


def measure(targets: list[Target], settings: Settings, console: Console) -> list[Record]:
    """Run all rounds under a progress bar, with one line per finished target."""
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(),
        console=console,
    ) as progress:  # fmt: skip
        peers = sum(target.kind == "peer" for target in targets)
        rounds = min(settings.peer_rounds, settings.rounds)
        total = settings.rounds * (len(targets) - peers) + rounds * peers
        task = progress.add_task("measuring", total=total)

        def tell(record: Record) -> None:
            progress.advance(task)
            console.print(line(record), highlight=False)

        return run(targets, settings, tell)


def line(record: Record) -> str:
    """What is said of a record while the benchmark runs."""
    if record.problem:
        return f"[red]{record.round + 1} {record.target}: {record.problem}[/]"
    windows = "  ".join(
        f"{name} {number(window['rps'])}/s"
        + (f" {number(window['cpu_us'])} µs" if "cpu_us" in window else "")
        + (f" [red]{window['errors']:.0f} errors[/]" if window["errors"] else "")
        for name, window in record.windows.items()
    )
    return f"{record.round + 1} {record.target:<14} {windows}"


def main(arguments: list[str]) -> int:
    """0; 1 when Sophia could not be measured, or a goal is missed that was to be checked."""
    options, console = parse(arguments), Console()
    if not console.is_terminal:
        console = Console(width=120)
    if sys.platform != "linux":
        console.print("the gateway benchmark reads Linux's scheduler statistics: run it on Linux")
        return 1
    refused = {} if options.skip_setup else set_up(options.targets, console)
    if "load generator" in refused:
        return 1
    missing = {target.name: why for target in build(options.targets) if (why := lacking(target, refused))}
    targets = [target for target in build(options.targets) if target.name not in missing]
    if not may_lift():
        console.print("not root: priorities stay as they are, so keep the machine quiet")
    began = datetime.datetime.now(datetime.UTC)
    try:
        settings = Settings(options.rounds, options.seconds, options.phases, options.peer_rounds, cores())
        records = measure(targets, settings, console)
    except Unable as problem:
        console.print(f"[red]{problem}[/]")
        return 1
    missing |= {record.target: record.problem for record in records if record.problem}
    over: dict[str, list[str]] = {}
    for record in records:
        if record.over:
            over[record.target] = sorted({*over.get(record.target, []), *record.over})
    result = Result(
        made=f"{began:%Y-%m-%d}",
        command=command(options),
        settings={"rounds": options.rounds, "peer_rounds": min(options.peer_rounds, options.rounds),
                  "seconds": options.seconds, "phases": list(options.phases), "priority_lifted": may_lift()},
        machine=describe_machine(), versions=versions({target.needs for target in targets}), targets=targets,
        summary=summarise(targets, records), over=over, missing=missing,
    )  # fmt: skip
    show(result, console)
    draw(result, console)
    save(result, records, options)
    unmeasured = any(name.startswith("sophia") for name in result.missing)
    return 1 if unmeasured or (options.check and missed(result)) else 0


def command(options: argparse.Namespace) -> str:
    """The call that repeats a run, without where its result was put."""
    parts = ["python -m bench.gateway"]
    if options.quick:
        parts.append("--quick")
    if options.targets != (QUICK if options.quick else ALL):
        parts.append(f"--targets {','.join(options.targets)}")
    if options.phases != tuple(PHASES):
        parts.append(f"--phases {','.join(options.phases)}")
    return " ".join([*parts, f"--rounds {options.rounds}", f"--seconds {options.seconds:g}"])


def save(result: Result, records: list[Record], options: argparse.Namespace) -> None:
    """Write the result; a quick look or an --output leaves the committed files alone."""
    places.RUN.mkdir(parents=True, exist_ok=True)
    (places.RUN / "gateway-rounds.json").write_text(json.dumps([asdict(record) for record in records], indent=1))
    if options.output:
        write_json(result, options.output)
    elif not options.quick:
        write_json(result, places.RESULTS / "gateway.json")
        places.REFERENCE.parent.mkdir(parents=True, exist_ok=True)
        places.PICTURE.write_text(svg(result))
        put_section(places.REFERENCE, "gateway", "The gateway", markdown(result, places.PICTURE.name))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
