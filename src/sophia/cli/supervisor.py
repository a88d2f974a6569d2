"""Several processes that serve one address: started, watched, replaced and stopped."""

import asyncio
import logging
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from sophia.core.background import BackgroundTasks

log = logging.getLogger("sophia.supervisor")

WORKER_VARIABLE = "SOPHIA_WORKER"
"""Holds the descriptor of a worker's listener; it makes `sophia serve` one of the workers."""
LEAVE = signal.SIGUSR2
"""Tells a worker to take no new connections and to end when its requests have ended."""
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
READY, ALIVE = b"ready\n", b"alive\n"
ALIVE_SECONDS = 1.0
_HANG_SECONDS = 10.0
"""Time without a sign of life after which a worker is killed."""
_READY_SECONDS = 60.0
_FIRST_DELAY, _LONGEST_DELAY = 0.1, 10.0
_LONGEST_QUEUE = 1.0
"""Delay up to which new connections wait for the next process of their worker."""
_BACKLOG = 2048
_STABLE_SECONDS = 30.0
"""Time after which a worker that ends is started again without delay."""


class _Worker:
    """A process; it ends when its standard input does, and writes signs of life."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.is_ready = asyncio.Event()
        self.was_ready = False
        self.started_at = asyncio.get_running_loop().time()
        self._asked = 0
        self.ended = asyncio.create_task(self._watch())

    async def _watch(self) -> int:
        """Return the exit code once the process has ended; one that hangs is killed.

        It is 0 for one that a signal to end has ended, and as in a shell for other signals.
        """
        assert self.process.stdout is not None
        while True:
            try:
                line = await asyncio.wait_for(self.process.stdout.readline(), _HANG_SECONDS)
            except TimeoutError:
                log.error("worker %d gives no sign of life and is killed", self.process.pid)
                self.process.kill()
                break
            if not line:
                break
            if line == READY:
                self.was_ready = True
                self.is_ready.set()
        code = await self.process.wait()
        self.is_ready.set()
        code = code if code >= 0 else 128 - code
        # One that still starts has no handler for the signal yet.
        return 0 if self._asked and code == 128 + self._asked else code

    def send(self, number: int) -> None:
        """Send a signal, if the process still runs."""
        if self.process.returncode is None:
            self._asked = number if number in _STOP_SIGNALS else 0
            self.process.send_signal(number)


class Supervisor:
    """Keeps `count` workers running, each started by `command`.

    Each has a listener of its own from `bind`, all on one port, among which the kernel spreads the
    connections. The supervisor keeps them open, so that a process may end while connections wait.
    `stop_seconds` is the time that workers get to end after a signal.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        bind: Callable[[], socket.socket],
        *,
        count: int,
        stop_seconds: float,
    ) -> None:
        self._command = command
        self._bind = bind
        self._environment = environment
        self._listeners: dict[int, socket.socket] = {}
        self._count = count
        self._stop_seconds = stop_seconds
        self._workers: dict[int, _Worker] = {}
        self._leaving: set[_Worker] = set()
        self._starting: set[_Worker] = set()
        self._delays: dict[int, float] = {}
        self._tasks = BackgroundTasks()
        self._spawning = 0
        self._ended = asyncio.Event()
        self._stopping = asyncio.Event()
        self._is_starting = True
        self._is_rolling = False
        self._must_roll = False
        self._code = 0

    async def start(self) -> bool:
        """Start all workers; return False when the first one ends before it is ready."""
        # The first one makes what the others find: the first snapshot, for example.
        first = await self._spawn(0)
        if not await self._wait_until_ready(first):
            if not self._stopping.is_set():
                self._code = await first.ended or 1
                log.error("the first worker ended with code %d before it was ready", self._code)
                self.stop(signal.SIGTERM)
            return False
        self._workers[0] = first
        for index in range(1, self._count):
            if self._stopping.is_set():
                return False
            await self._start_worker(index)
        for worker in tuple(self._workers.values()):
            await self._wait_until_ready(worker)
        self._is_starting = False
        if self._must_roll:
            self.roll()
        return not self._stopping.is_set()

    async def wait(self) -> int:
        """Return the exit code once all workers have ended after `stop`."""
        await self._ended.wait()
        await self._tasks.close()
        return self._code

    def stop(self, number: int) -> None:
        """Pass a signal on; workers that have not ended in time are killed."""
        if not self._stopping.is_set():
            self._stopping.set()
            # Nobody would accept what waits there once the workers are gone.
            for index in tuple(self._listeners):
                self._listeners.pop(index).close()
            loop = asyncio.get_running_loop()
            loop.call_later(self._stop_seconds, self._send_to_all, signal.SIGKILL)
        self._send_to_all(number)
        self._end_if_last()

    def roll(self) -> None:
        """Replace the workers one by one, each by one that is ready.

        While they are started or replaced, this is done after that: the first ones may have read
        older settings.
        """
        self._must_roll = True
        if not (self._is_starting or self._is_rolling or self._stopping.is_set()):
            self._is_rolling = True
            self._tasks.start(self._roll())

    async def _roll(self) -> None:
        try:
            while self._must_roll and not self._stopping.is_set():
                self._must_roll = False
                await self._replace_all()
        finally:
            self._is_rolling = False
        if self._stopping.is_set():
            self._end_if_last()

    async def _replace_all(self) -> None:
        log.info("replacing %d workers one by one", self._count)
        for index in range(self._count):
            if not await self._replace(index):
                return
        log.info("all workers are replaced")

    async def _replace(self, index: int) -> bool:
        """Let a new worker take the place of one; return whether it became ready."""
        if self._stopping.is_set():
            return False
        try:
            new = await self._spawn(index)
            is_ready = await self._wait_until_ready(new)
        except OSError as error:
            log.error("a worker cannot be started: %s", error)
            is_ready = False
        if self._stopping.is_set():
            return False
        if not is_ready:
            log.error("the new worker did not become ready; the others stay")
            return False
        old = self._workers.get(index)
        self._workers[index] = new
        if old is not None:
            self._leaving.add(old)
            old.send(LEAVE)
        return True

    async def _start_worker(self, index: int) -> _Worker:
        """Start the worker that is number `index` from now on."""
        worker = await self._spawn(index)
        self._workers[index] = worker
        return worker

    async def _spawn(self, index: int) -> _Worker:
        """Start a process on the listener number `index`, and watch it."""
        if index not in self._listeners:
            self._listeners[index] = self._bind()
            self._listeners[index].listen(_BACKLOG)
        descriptor = self._listeners[index].fileno()
        self._spawning += 1
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                env={**self._environment, WORKER_VARIABLE: str(descriptor)},
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                pass_fds=(descriptor,),
                # Ctrl-C is for the supervisor, which passes it on.
                start_new_session=True,
            )
        finally:
            self._spawning -= 1
        worker = _Worker(process)
        self._starting.add(worker)
        self._tasks.start(self._watch(index, worker))
        if self._stopping.is_set():
            worker.send(signal.SIGTERM)
        return worker

    async def _watch(self, index: int, worker: _Worker) -> None:
        """Start another worker when this one ends by itself."""
        code = await worker.ended
        is_leaving = worker in self._leaving
        self._leaving.discard(worker)
        self._starting.discard(worker)
        if self._stopping.is_set():
            self._code = self._code or code
        elif self._workers.get(index) is worker:
            await self._start_again(index, worker, code)
        elif is_leaving and code:
            pid = worker.process.pid
            log.error("worker %d, which was replaced, ended with code %d", pid, code)
        if self._stopping.is_set():
            self._end_if_last()

    async def _start_again(self, index: int, worker: _Worker, code: int) -> None:
        """Replace a worker that has ended, later and later if that happens soon after its start."""
        if asyncio.get_running_loop().time() - worker.started_at > _STABLE_SECONDS:
            self._delays.pop(index, None)
        when = "" if worker.was_ready else " before it was ready"
        problem = f"worker {worker.process.pid} ended with code {code}{when}"
        while self._workers.get(index) is worker and not self._stopping.is_set():
            delay = self._delays.get(index, _FIRST_DELAY)
            self._delays[index] = min(2 * delay, _LONGEST_DELAY)
            log.error("%s; another one starts in %.1f s", problem, delay)
            if delay > _LONGEST_QUEUE and index in self._listeners:
                self._listeners.pop(index).close()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay)
            if self._workers.get(index) is worker and not self._stopping.is_set():
                try:
                    await self._wait_until_ready(await self._start_worker(index))
                except OSError as error:
                    problem = f"a worker cannot be started: {error}"

    async def _wait_until_ready(self, worker: _Worker) -> bool:
        try:
            await asyncio.wait_for(worker.is_ready.wait(), _READY_SECONDS)
        except TimeoutError:
            log.error("worker %d is not ready after %.0f s and is killed",
                      worker.process.pid, _READY_SECONDS)  # fmt: skip
            worker.send(signal.SIGKILL)
            return False
        finally:
            self._starting.discard(worker)
        return worker.process.returncode is None

    def _send_to_all(self, number: int) -> None:
        for worker in {*self._workers.values(), *self._leaving, *self._starting}:
            worker.send(number)

    def _end_if_last(self) -> None:
        running = {*self._workers.values(), *self._leaving, *self._starting}
        if not self._spawning and all(one.process.returncode is not None for one in running):
            self._ended.set()


def list_worker_command() -> list[str]:
    """Return the command that starts this program again with the same arguments."""
    return [sys.executable, "-m", "sophia", *sys.argv[1:]]


def take_listener(environment: Mapping[str, str]) -> socket.socket | None:
    """Return the listener that a supervisor shares with this process; None without one."""
    descriptor = environment.get(WORKER_VARIABLE)
    if descriptor is None:
        return None
    return socket.socket(fileno=int(descriptor))
