"""Ordinary requests beside clients that send or read slowly. `python -m bench.slow_clients --help`.

Measured are the latency of ordinary requests without and with all slow clients of a kind connected,
which are in a process of their own; the time after which the server cuts each connection; and its memory.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import math
import multiprocessing
import os
import re
import resource
import socket
import sys
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import uvloop
import yaml
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from bench.gateway.machine import write_figures
from bench.gateway.process import pin_command, read_resident_mb, select_cores
from bench.gateway.targets import FOREIGN_SETTINGS, MODEL

STREAMED = "mistralai/mistral-nemo"
EVENTS, EVENT_CHARS = 20, 60_000
BODY_BYTES = 1_000_000
TURN_SECONDS = 1.0
DRIP_TURNS = 5
"""Turns in which each slow client sends one byte."""
SAMPLE_SECONDS = 0.2
ALLOWED_LATE_SECONDS = 3.0
ESTABLISHED = "01"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Figures of one kind of slow clients; times in ms where named, otherwise in seconds."""

    kind: str
    connections: int
    limit_s: float
    requests: int
    errors: int
    alone_p50_ms: float
    alone_p99_ms: float
    beside_p50_ms: float
    beside_p99_ms: float
    first_cut_s: float | None
    median_cut_s: float | None
    last_cut_s: float | None
    never_cut: int
    resident_before_mb: float
    resident_most_mb: float
    resident_after_mb: float


@dataclass(slots=True)
class Server:
    """A running Sophia."""

    pid: int
    port: int
    key: str

    def request(self, model: str, *, stream: bool = False) -> bytes:
        """Return the bytes of an ordinary request."""
        messages = [{"role": "user", "content": "Why is the sky blue?"}]
        body = json.dumps({"model": model, "messages": messages, "stream": stream}).encode()
        return self.head(len(body)) + body

    def head(self, length: int) -> bytes:
        """Return the head of a request with a body of `length` bytes."""
        return (
            "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
            f"Authorization: Bearer {self.key}\r\nContent-Length: {length}\r\n\r\n"
        ).encode()


class SlowClient(asyncio.Protocol):
    """Sends `start`, and then a byte now and then or, if it `reads` nothing, no more."""

    def __init__(self, start: bytes, *, reads: bool) -> None:
        self._start = start
        self._reads = reads
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport

    def begin(self) -> None:
        """Send the first bytes; only now is reading paused for good."""
        if not self._reads:
            self.transport.pause_reading()
        self.transport.write(self._start)

    def drip(self) -> None:
        """Send one more byte."""
        if self._reads and not self.transport.is_closing():
            self.transport.write(b"x")


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowd:
    """Slow clients of one kind, which a process of their own connects at a `ramp` per second."""

    port: int
    start: bytes
    reads: bool
    count: int
    ramp: float
    limit_s: float

    @property
    def longest_s(self) -> float:
        """Return the seconds after which all connections should be cut."""
        return self.count / self.ramp + self.limit_s + 2 * ALLOWED_LATE_SECONDS


@dataclass(slots=True)
class Seen:
    """When all slow clients were connected, when the first was cut, and how long each lasted."""

    all_open: float = math.inf
    first_cut: float = math.inf
    lasted: list[float] = field(default_factory=list)
    never_cut: int = 0


def build_crowd(server: Server, kind: str, limit: float, options: argparse.Namespace) -> Crowd:
    """Return the slow clients of a kind."""
    head = server.head(BODY_BYTES)
    starts = {
        "header": head[:60],
        "body": head + b'{"model":"',
        "read": server.request(STREAMED, stream=True),
    }
    reads = kind != "read"
    # A stream is work for the server when it opens, a head is none.
    ramp = options.ramp * 5 if reads else options.ramp
    return Crowd(
        port=server.port, start=starts[kind], reads=reads, limit_s=limit,
        count=options.connections, ramp=ramp,
    )  # fmt: skip


async def hold_connections(crowd: Crowd) -> Seen:
    """Connect the slow clients, keep them slow, and note when each is cut."""
    loop, began, seen = asyncio.get_running_loop(), time.perf_counter(), Seen()
    clients: dict[int, tuple[float, SlowClient]] = {}

    async def connect_all() -> None:
        for number in range(crowd.count):
            await asyncio.sleep(began + number / crowd.ramp - time.perf_counter())
            connection = socket.socket()
            connection.setblocking(False)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            await loop.sock_connect(connection, ("127.0.0.1", crowd.port))
            port = connection.getsockname()[1]
            _, client = await loop.create_connection(
                lambda: SlowClient(crowd.start, reads=crowd.reads), sock=connection
            )
            client.begin()
            clients[port] = (time.perf_counter(), client)
        seen.all_open = time.perf_counter()

    connecting = asyncio.create_task(connect_all())
    for turn in itertools.count():
        if (not clients and connecting.done()) or time.perf_counter() > began + crowd.longest_s:
            break
        # One after another, as clients of many machines would send.
        for port, (_, client) in tuple(clients.items()):
            if (port + turn) % DRIP_TURNS == 0:
                client.drip()
                await asyncio.sleep(TURN_SECONDS / crowd.count)
        known = set(clients)
        for port in known - list_open_ports(crowd.port):
            opened, client = clients.pop(port)
            client.transport.abort()
            seen.lasted.append(time.perf_counter() - opened)
            seen.first_cut = min(seen.first_cut, opened + seen.lasted[-1] - TURN_SECONDS)
        await asyncio.sleep(TURN_SECONDS / 2)
    await connecting
    seen.never_cut = len(clients)
    seen.lasted.sort()
    return seen


def run_crowd(crowd: Crowd, answer: Connection) -> None:
    """Hold connections in a process of their own, and send what was seen."""
    answer.send(uvloop.run(hold_connections(crowd)))


def list_open_ports(server_port: int) -> set[int]:
    """Return the clients' ports of the connections that the server has open."""
    local = f":{server_port:04X}"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {
        int(row[2].rpartition(":")[2], 16)
        for row in rows
        if row[1].endswith(local) and row[3] == ESTABLISHED
    }


async def measure_latency(
    server: Server, rate: float, stop: asyncio.Event
) -> list[tuple[float, float | None]]:
    """Send ordinary requests at a rate; return when each was due, and its seconds or None.

    The time counts from when a request was due, so that a stalled server cannot hide its queue.
    """
    idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    results: list[tuple[float, float | None]] = []
    data = server.request(MODEL)

    async def ask(due: float) -> None:
        try:
            pair = idle.pop() if idle else await asyncio.open_connection("127.0.0.1", server.port)
            reader, writer = pair
            writer.write(data)
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(re.search(rb"content-length: (\d+)", head)[1])  # type: ignore[index]
            await reader.readexactly(length)
            results.append((due, time.perf_counter() - due if b" 200 " in head[:20] else None))
            idle.append(pair)
        except (OSError, asyncio.IncompleteReadError, TypeError):
            results.append((due, None))

    due, tasks = time.perf_counter(), set[asyncio.Task[None]]()
    while not stop.is_set():
        await asyncio.sleep(max(due - time.perf_counter(), 0))
        task = asyncio.create_task(ask(due))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
        due += 1 / rate
    await asyncio.gather(*tasks)
    for _, writer in idle:
        writer.close()
    return results


async def measure_kind(
    server: Server, kind: str, limit: float, options: argparse.Namespace, progress: Progress
) -> Result:
    """Measure ordinary requests before, beside and after slow clients of one kind."""
    crowd = build_crowd(server, kind, limit, options)
    task = progress.add_task(f"{kind}: alone", total=2 * options.seconds + crowd.longest_s)
    alone = await measure_for(server, options.rate, options.seconds)
    progress.update(task, description=f"{kind}: beside", completed=options.seconds)
    before = most = read_resident_mb([server.pid])
    stop = asyncio.Event()
    load = asyncio.create_task(measure_latency(server, options.rate, stop))
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("spawn").Process(target=run_crowd, args=(crowd, sender))
    process.start()
    while not receiver.poll():
        await asyncio.sleep(SAMPLE_SECONDS)
        most = max(most, read_resident_mb([server.pid]))
        progress.advance(task, SAMPLE_SECONDS)
    seen: Seen = receiver.recv()
    process.join()
    stop.set()
    measured = await load
    beside = find_latencies(measured, seen.all_open, seen.first_cut)
    progress.update(task, description=f"{kind}: alone again")
    after = read_resident_mb([server.pid])
    alone += await measure_for(server, options.rate, options.seconds)
    progress.update(task, completed=progress.tasks[task].total)
    alone.sort()
    return Result(
        kind=kind,
        connections=options.connections,
        limit_s=limit,
        requests=len(beside),
        errors=sum(seconds is None for _, seconds in measured),
        alone_p50_ms=percentile(alone, 0.5),
        alone_p99_ms=percentile(alone, 0.99),
        beside_p50_ms=percentile(beside, 0.5),
        beside_p99_ms=percentile(beside, 0.99),
        first_cut_s=round(seen.lasted[0], 1) if seen.lasted else None,
        median_cut_s=round(seen.lasted[len(seen.lasted) // 2], 1) if seen.lasted else None,
        last_cut_s=round(seen.lasted[-1], 1) if seen.lasted else None,
        never_cut=seen.never_cut,
        resident_before_mb=before,
        resident_most_mb=most,
        resident_after_mb=after,
    )


async def measure_for(server: Server, rate: float, seconds: float) -> list[float]:
    """Return the latencies of ordinary requests alone, in order."""
    stop = asyncio.Event()
    asyncio.get_running_loop().call_later(seconds, stop.set)
    return find_latencies(await measure_latency(server, rate, stop), 0.0, float("inf"))


def find_latencies(
    measured: list[tuple[float, float | None]], begin: float, end: float
) -> list[float]:
    """Return the latencies of the requests that were due in a window, in order."""
    return sorted(each for due, each in measured if begin <= due < end and each is not None)


def percentile(ordered: list[float], share: float) -> float:
    """Return a percentile in milliseconds."""
    return round(ordered[int((len(ordered) - 1) * share)] * 1e3, 2) if ordered else float("nan")


@contextlib.asynccontextmanager
async def serving(options: argparse.Namespace) -> AsyncIterator[Server]:
    """Start a sandbox and a Sophia before it, each in a process of its own."""
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith(FOREIGN_SETTINGS)
    }
    processes: list[asyncio.subprocess.Process] = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            command = (sys.executable, "-m", "sophia.sandbox", "--no-local", "--speed", "0")
            found = await start(command, inherited, rb"listening on (\S+)", processes)
            script_streams(found[1])
            config = Path(folder) / "sophia.yaml"
            config.write_text(yaml.safe_dump(build_settings(options, folder, found[1])))
            command = (sys.executable, "-m", "sophia", "serve", "--config", str(config))
            # On a core of its own, so that the load does not take its time.
            command = tuple(pin_command(options.core, command))
            found = await start(
                command, inherited, rb"(?s)localhost:(\d+).*?(sk-sph-\w+-\w+-\w+)", processes
            )
            yield Server(processes[-1].pid, int(found[1]), found[2])
        finally:
            for process in reversed(processes):
                process.terminate()
                await process.wait()


def build_settings(options: argparse.Namespace, folder: str, address: str) -> dict[str, object]:
    """Return Sophia's settings."""
    limits = {name: getattr(options, name) for name in ("head_s", "body_s", "write_s")}
    upstream = {"name": "sandbox", "kind": "openrouter", "base_url": address, "api_key": "x",
                "max_connections": 2 * options.connections + 100}  # fmt: skip
    return {
        "data_dir": f"{folder}/data",
        "server": {"port": 0, "max_in_flight": 2 * options.connections + 100, **limits},
        "budget": {"daily_usd": None},
        "catalogue": {"refresh_hours": 0},
        "telemetry": {"log_level": "warning"},
        "upstreams": [upstream],
    }


async def start(
    command: tuple[str, ...],
    environment: dict[str, str],
    expected: bytes,
    processes: list[asyncio.subprocess.Process],
) -> list[str]:
    """Start a process, add it to `processes`, and return what `expected` finds in its output."""
    process = await asyncio.create_subprocess_exec(
        *command, env=environment, stdout=asyncio.subprocess.PIPE, stdin=asyncio.subprocess.DEVNULL
    )
    processes.append(process)
    assert process.stdout is not None
    seen = b""
    async with asyncio.timeout(60):
        while (found := re.search(expected, seen)) is None:
            some = await process.stdout.read(4096)
            if not some:
                raise SystemExit(f"{' '.join(command)} ended: {seen.decode(errors='replace')}")
            seen += some
    return [found[0].decode(), *(group.decode() for group in found.groups())]


def script_streams(base_url: str) -> None:
    """Let the sandbox stream more to the readers than the buffers of their sockets hold."""
    text = "many words " * (EVENT_CHARS // 11)
    chunk = json.dumps({"id": "gen-x", "choices": [{"index": 0, "delta": {"content": text}}]})
    step = {"body": f"data: {chunk}\n\n" * EVENTS, "headers": {"Content-Type": "text/event-stream"}}
    body = json.dumps({"model": STREAMED, "steps": [step], "times": None}).encode()
    address = base_url.removesuffix("/v1").removesuffix("/api") + "/sandbox/script"
    urllib.request.urlopen(urllib.request.Request(address, body), timeout=10).close()


async def measure(options: argparse.Namespace, console: Console) -> list[Result]:
    """Measure each kind of slow clients."""
    columns = TextColumn("{task.description:<20}"), BarColumn()
    limits = {"header": options.head_s, "body": options.body_s, "read": options.write_s}
    async with serving(options) as server:
        await measure_for(server, options.rate, 2.0)
        with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
            return [
                await measure_kind(server, kind, limits[kind], options, progress)
                for kind in options.kinds
            ]


def print_results(results: list[Result], console: Console) -> None:
    """Print a table."""
    table = Table("slow", "n", "limit s", "cut s (first, median, last)", "never", "requests",
                  "errors", "p50 ms", "with", "p99 ms", "with", "RSS MB (before, most, after)")  # fmt: skip
    for each in results:
        table.add_row(
            each.kind, str(each.connections), f"{each.limit_s:g}",
            f"{each.first_cut_s}, {each.median_cut_s}, {each.last_cut_s}", str(each.never_cut),
            str(each.requests), str(each.errors), f"{each.alone_p50_ms}", f"{each.beside_p50_ms}",
            f"{each.alone_p99_ms}", f"{each.beside_p99_ms}",
            f"{each.resident_before_mb:.0f}, {each.resident_most_mb:.0f}, {each.resident_after_mb:.0f}",
        )  # fmt: skip
    console.print(table)


def parse(arguments: list[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.slow_clients", description=__doc__)
    parser.add_argument("--connections", type=int, default=1000, help="of each kind")
    parser.add_argument(
        "--ramp",
        type=float,
        default=50.0,
        help="streams opened per second, others five times as many",
    )
    parser.add_argument("--rate", type=float, default=100.0, help="ordinary requests per second")
    parser.add_argument(
        "--seconds", type=float, default=15.0, help="of requests alone, before and after"
    )
    parser.add_argument("--head-s", type=float, default=30.0, help="setting server.head_s")
    parser.add_argument("--body-s", type=float, default=30.0, help="setting server.body_s")
    parser.add_argument("--write-s", type=float, default=60.0, help="setting server.write_s")
    parser.add_argument(
        "--kinds", type=lambda text: text.split(","), default=["header", "body", "read"],
        help="of header, body, read",
    )  # fmt: skip
    parser.add_argument("--output", type=Path, help="write the figures here as JSON")
    return parser.parse_args(arguments)


def main(arguments: list[str]) -> int:
    """Return 0, or 1 when a connection was not cut in time or a request failed."""
    options, console = parse(arguments), Console()
    if not console.is_terminal:
        console = Console(width=160)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = 4 * options.connections + 500
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(needed, hard), hard))
    cores = select_cores()
    options.core = cores.gateway
    os.sched_setaffinity(0, {cores.load})
    results = uvloop.run(measure(options, console))
    print_results(results, console)
    if options.output:
        rows = [asdict(result) for result in results]
        write_figures(options.output, "bench.slow_clients", arguments, rows)
    late = [each for each in results if each.never_cut or each.errors]
    late += [
        each for each in results if (each.last_cut_s or 0) > each.limit_s + ALLOWED_LATE_SECONDS
    ]
    return 1 if late else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
