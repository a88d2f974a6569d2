"""Start the sandbox in its own process: `python -m sophia.sandbox --port 0`."""

import argparse
import asyncio
import os
import signal
import stat
import sys
from pathlib import Path

from sophia.sandbox.api.listing import read_listing
from sophia.sandbox.server import ScriptedUpstream
from sophia.sandbox.text.local_model import LocalTextGenerator, find_model_file

PARENT_CHECK_SECONDS = 1.0


def main() -> None:
    """Serve until a signal comes, standard input closes, or the parent process is gone."""
    arguments = _parser().parse_args()
    try:
        asyncio.run(_serve(arguments))
    except KeyboardInterrupt:
        pass
    except OSError as error:
        sys.exit(f"The sandbox cannot listen on {arguments.host}:{arguments.port}: {error}")
    # The threads of the local model never end by themselves.
    sys.stdout.flush()
    os._exit(0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sophia.sandbox", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0 takes a free one")
    parser.add_argument("--models", type=Path, help="body of GET /models; default: the snapshot")
    parser.add_argument(
        "--local",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="let the packaged small model write plain text when it is installed",
    )
    parser.add_argument("--speed", type=float, default=1.0, help="times as fast; 0 never waits")
    parser.add_argument("--parent-pid", type=int, help="exit when this process is gone")
    return parser


async def _serve(arguments: argparse.Namespace) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    _watch_stdin(loop, stop)
    weights = find_model_file() if arguments.local else None
    model = LocalTextGenerator(weights) if weights else None
    upstream = ScriptedUpstream(
        models=read_listing(arguments.models),
        host=arguments.host,
        port=arguments.port,
        speed=arguments.speed,
        local_model=model,
    )
    async with upstream:
        print(f"listening on {upstream.base_url}", flush=True)
        if model is not None:
            model.start()
        await _wait_for_stop(stop, arguments.parent_pid)


async def _wait_for_stop(stop: asyncio.Event, parent: int | None) -> None:
    while not stop.is_set() and (parent is None or _is_alive(parent)):
        try:
            await asyncio.wait_for(stop.wait(), PARENT_CHECK_SECONDS)
        except TimeoutError:
            continue


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except PermissionError:
        pass
    except ProcessLookupError:
        return False
    return True


def _watch_stdin(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """Stop when a pipe on standard input closes; a terminal or /dev/null is not a parent's."""
    if sys.stdin is None or not stat.S_ISFIFO(os.fstat(sys.stdin.fileno()).st_mode):
        return

    def read() -> None:
        if not os.read(0, 4096):
            stop.set()

    loop.add_reader(0, read)


if __name__ == "__main__":
    main()
