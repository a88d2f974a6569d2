"""The sandbox in a process of its own."""

import asyncio
import os
import sys
from dataclasses import dataclass

from sophia.core.errors import ConfigError

_START_SECONDS = 15.0


class SandboxNotStarted(ConfigError):
    """The sandbox process did not report its address in time."""


@dataclass(slots=True)
class SandboxProcess:
    """A running sandbox; it ends with this process at the latest."""

    process: asyncio.subprocess.Process
    base_url: str

    @classmethod
    async def start(cls, speed: float, *, local_model: bool) -> "SandboxProcess":
        """Start a sandbox and wait for its address. Raises SandboxNotStarted."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "sophia.sandbox", "--port", "0", "--speed", str(speed)),
            "--local" if local_model else "--no-local",
            *("--parent-pid", str(os.getpid())),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        try:
            line = await asyncio.wait_for(process.stdout.readline(), _START_SECONDS)
        except TimeoutError:
            line = b""
        if not line.startswith(b"listening on "):
            process.kill()
            raise SandboxNotStarted(
                "the sandbox did not start; set OPENROUTER_API_KEY to do without it"
            )
        return cls(process, line.decode().removeprefix("listening on ").strip())

    async def close(self) -> None:
        """End the process."""
        if self.process.returncode is None:
            self.process.terminate()
            await self.process.wait()
