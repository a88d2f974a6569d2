"""Describe the machine and the software versions of a result, without host name or paths."""

import json
import os
import platform
import re
import subprocess
import sys
import sysconfig
from collections.abc import Sequence
from pathlib import Path

from bench.gateway.paths import ENVIRONMENTS, NODE, REPOSITORY
from bench.gateway.setup import NODE_PEERS, PYTHON_PEERS
from bench.gateway.targets import find_nginx

PACKAGES = {
    name: re.split(r"[\[=]", requirements[0])[0] for name, requirements in PYTHON_PEERS.items()
}


def describe_machine() -> dict[str, str | int]:
    """Return processor, cores, memory, kernel, distribution and Python version."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count() or 0,
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "kernel": "Linux " + (re.match(r"[\d.]+", platform.release()) or [platform.release()])[0],
        "distribution": _distribution(),
        "python": describe_python(),
    }


def describe_python() -> str:
    """Return the version of this Python, and whether its build was optimised by a profile (PGO).

    Distributions build so, and do not all say it.
    """
    arguments = sysconfig.get_config_var("CONFIG_ARGS") or ""
    is_optimised = "--enable-optimizations" in arguments or sys.base_prefix == "/usr"
    return f"{platform.python_version()} ({'with' if is_optimised else 'without'} PGO)"


def list_versions(needs: set[str]) -> dict[str, str]:
    """Return the versions of Sophia and of the requirements in `needs`, by name."""
    found = {
        "nginx": _first_match(r"nginx/([\d.]+)", find_nginx() or "nginx", "-v"),
        "node": _first_match(r"v([\d.]+)", "node", "--version"),
        "sophia": _sophia(),
    }
    for name, package in PACKAGES.items():
        pattern = f"{package}-*.dist-info".replace("-server", "?server")
        for metadata in (ENVIRONMENTS / name).glob(f"lib/python*/site-packages/{pattern}"):
            found[name] = metadata.name.removesuffix(".dist-info").rsplit("-", 1)[1]
    for name, requirement in NODE_PEERS.items():
        if (NODE / name / "installed.txt").exists():
            found[name] = requirement.rsplit("@", 1)[1]
    reported = needs | {"sophia"} | ({"node"} if needs & NODE_PEERS.keys() else set())
    return {name: version for name, version in found.items() if version and name in reported}


def write_figures(path: Path, module: str, arguments: Sequence[str], results: object) -> None:
    """Write the results of a benchmark as JSON, with its command and the machine."""
    figures = {
        "machine": describe_machine(),
        "versions": list_versions({"sophia"}),
        "command": " ".join(["python -m", module, *arguments]),
        "results": results,
    }
    path.write_text(json.dumps(figures, indent=1) + "\n")


def _processor() -> str:
    names = re.findall(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return names[0].strip() if names else platform.machine()


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        return "Linux"


def _sophia() -> str:
    commit = _first_match(
        r"([0-9a-f]{7,})", "git", "-C", str(REPOSITORY), "rev-parse", "--short", "HEAD"
    )
    version = _first_match(r'(?m)^version = "([^"]+)"', "cat", str(REPOSITORY / "pyproject.toml"))
    return f"{version} ({commit})" if commit else version


def _first_match(pattern: str, *command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except OSError:
        return ""
    match = re.search(pattern, done.stdout + done.stderr)
    return match[1] if match else ""
