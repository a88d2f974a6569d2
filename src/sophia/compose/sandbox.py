"""The sandbox in a process of its own."""

import asyncio
import os
import sys
from dataclasses import dataclass

from sophia.config import ConfigError, Settings

_SANDBOX_SECONDS = 15.0


@dataclass(slots=True)
class SandboxProcess:
    """The sandbox in its own process, ended with ours."""

    process: asyncio.subprocess.Process
    base_url: str

    @classmethod
    async def start(cls, settings: Settings) -> "SandboxProcess":
        """Start it and wait for its address. Raises ConfigError when it does not come up."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "sophia.testing",
            "--port",
            "0",
            "--speed",
            str(settings.sandbox.speed),
            "--local" if settings.sandbox.local_model else "--no-local",
            "--parent-pid",
            str(os.getpid()),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        if process.stdout is None:
            raise RuntimeError("the sandbox was started with a pipe")
        try:
            line = await asyncio.wait_for(process.stdout.readline(), _SANDBOX_SECONDS)
        except TimeoutError:
            line = b""
        if not line.startswith(b"listening on "):
            process.kill()
            raise ConfigError("the sandbox did not start; set OPENROUTER_API_KEY to do without it")
        return cls(process, line.decode().removeprefix("listening on ").strip())

    async def close(self) -> None:
        """End the process."""
        if self.process.returncode is None:
            self.process.terminate()
            await self.process.wait()
