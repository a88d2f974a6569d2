"""Play faults of upstreams to Sophia and its peers. `python -m bench.chaos --help`."""

import argparse
import datetime
import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import uvloop
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench.chaos.faults import Phase
from bench.chaos.gateways import ALL, build_target, running
from bench.chaos.measure import Load, compare_books, run_phase, sampling
from bench.chaos.report import count_failed, print_report, render_page, render_svg
from bench.gateway import paths
from bench.gateway.__main__ import parse_names
from bench.gateway.machine import describe_machine, list_versions
from bench.gateway.process import BenchmarkError
from bench.gateway.setup import SetupError, plan_installation
from bench.gateway.targets import Target

JsonObject = dict[str, Any]
PAGE = paths.REFERENCE.with_name("chaos.md")
PICTURE = PAGE.with_suffix(".svg")
WARM_UP_SECONDS = 2.0
FULL = {"requests": 20_000, "cuts": 10_000, "rate": 100.0, "outage": 20.0}
QUICK = {"requests": 400, "cuts": 200, "rate": 50.0, "outage": 7.0}


def parse(arguments: list[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.chaos", description=__doc__)
    add = parser.add_argument
    add("--requests", type=int, help="requests with faults before content (default 20,000)")
    add("--cuts", type=int, help="streams that are cut (default 10,000)")
    add("--rate", type=float, help="requests per second (default 100)")
    add("--outage", type=float, help="seconds of the outage (default 20)")
    add("--peers", type=lambda text: parse_names(text, ALL[1:]), help=f"of {', '.join(ALL[1:])}")
    add("--peer-share", type=float, default=0.1, help="share of requests and cuts for a peer")
    add("--peer-rate", type=float, default=5.0, help="requests per second to a peer (default 5)")
    add("--on-cut", choices=("terminate", "continue"), default="terminate", help="of Sophia")
    add("--seed", type=int, default=1)
    add("--quick", action="store_true", help="Sophia only, small numbers, no files written")
    add("--check", action="store_true", help="exit with 1 when Sophia loses or hides anything")
    add("--output", type=Path, help="write the JSON here, and neither page nor picture")
    options = parser.parse_args(arguments)
    for name, value in (QUICK if options.quick else FULL).items():
        setattr(options, name, getattr(options, name) or value)
    if options.peers is None:
        options.peers = () if options.quick else ALL[1:]
    return options


def install(names: tuple[str, ...], console: Console) -> dict[str, str]:
    """Install the gateways; return the reason for each that failed."""
    missing: dict[str, str] = {}
    steps = plan_installation(set(names))
    for name in names:
        with console.status(f"setting up {name}"):
            try:
                steps[name]()
            except SetupError as problem:
                missing[name] = str(problem)
    return missing


async def measure(target: Target, options: argparse.Namespace, progress: Progress) -> JsonObject:
    """Run all phases of one gateway. Raises BenchmarkError if it does not start."""
    is_ours = target.kind == "ours"
    share, rate = (1.0, options.rate) if is_ours else (options.peer_share, options.peer_rate)
    # The cuts come last: after them both models look ill to a gateway that judges by past calls.
    sizes: dict[Phase, float] = {
        "warm-up": WARM_UP_SECONDS * rate,
        "faults": options.requests * share,
        "outage": options.outage * rate,
        "cuts": options.cuts * share,
    }
    result: JsonObject = {"title": target.title, "phases": {}}
    async with running(target, options.seed) as gateway:
        for phase, size in sizes.items():
            load = Load(phase, max(1, round(size)), rate, options.seed)
            task = progress.add_task(f"{target.title}: {phase}", total=load.requests)
            async with sampling(target, gateway) as summary:
                advance = partial(progress.advance, task)
                result["phases"][phase] = await run_phase(target, load, advance)
            if is_ours and phase == "faults":
                result["soak"] = summary()
        if is_ours:
            result["nano_dollars"] = await compare_books(target)
    return result


async def run(options: argparse.Namespace, console: Console) -> JsonObject:
    """Measure every gateway, one after the other."""
    load, names = f"{os.getloadavg()[0]:.1f}", ("sophia", *options.peers)
    missing = install(names, console)
    gateways: JsonObject = {}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        for name in names:
            try:
                if name not in missing:
                    gateways[name] = await measure(
                        build_target(name, options.on_cut), options, progress
                    )
            except (BenchmarkError, OSError) as problem:
                missing[name] = str(problem)[:300]
    names_of_options = (*FULL, "peer_share", "peer_rate", "on_cut", "seed")
    chosen = {name: getattr(options, name) for name in names_of_options}
    flags = " ".join(
        f"--{name.replace('_', '-')} {value if isinstance(value, str) else format(value, 'g')}"
        for name, value in chosen.items()
    )
    return {
        "made": f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}",
        "command": f"python -m bench.chaos {flags}",
        "settings": {**chosen, "load": load},
        "machine": describe_machine(),
        "versions": list_versions(set(names)),
        "missing": missing,
        "gateways": gateways,
    }


def find_problems(result: JsonObject) -> list[str]:
    """Return the goals that Sophia missed: nothing lost before content, nothing hidden after it."""
    if "sophia" not in result["gateways"]:
        return [f"Sophia was not measured: {result['missing'].get('sophia')}"]
    phases = result["gateways"]["sophia"]["phases"]
    books = result["gateways"]["sophia"]["nano_dollars"]
    cuts = phases["cuts"]["outcomes"]
    recoverable = [found for phase, found in phases.items() if phase != "cuts"]
    lost = sum(found["with_fault"] - found["outcomes"].get("complete", 0) for found in recoverable)
    problems = {
        "requests failed although a model was healthy": lost
        + sum(map(count_failed, phases.values())),
        "cut streams ended as if complete": cuts.get("silent", 0) + cuts.get("unmarked", 0),
        "cut streams never ended": cuts.get("hung", 0),
        "nano-dollars of the ledger are not on the bill": books["ledger"] - books["bill"],
        "nano-dollars of the bill are neither in the ledger nor reserved": books["bill"]
        - books["ledger"]
        - books["held"],
    }
    return [f"{count:,} {problem}" for problem, count in problems.items() if count > 0]


def main(arguments: list[str]) -> int:
    """Return 0; 1 if Sophia was not measured or `--check` finds a missed goal."""
    options, console = parse(arguments), Console()
    if not console.is_terminal:
        console = Console(width=140)
    result = uvloop.run(run(options, console))
    print_report(result, console)
    for problem in (problems := find_problems(result)):
        console.print(f"[red]{problem}[/]")
    text = json.dumps(result, indent=1, ensure_ascii=False) + "\n"
    if options.output:
        options.output.write_text(text)
    elif not options.quick:
        (paths.RESULTS / "chaos.json").write_text(text)
        PAGE.write_text(render_page(result, PICTURE.name))
        PICTURE.write_text(render_svg(result))
    return 1 if "sophia" not in result["gateways"] or (options.check and problems) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
