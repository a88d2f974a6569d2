"""Paths and ports of the benchmark; paths are relative to the repository."""

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
BENCH = REPOSITORY / "bench"
SOURCES = BENCH / "c"
CONFIGURATIONS = BENCH / "conf"
RESULTS = BENCH / "results"
REFERENCE = REPOSITORY / "docs" / "reference" / "benchmark.md"
PICTURE = REPOSITORY / "docs" / "reference" / "benchmark-gateway.svg"

WORK = BENCH / "work"
BINARIES = WORK / "bin"
BODIES = WORK / "bodies"
RUN = WORK / "run"
CERTIFICATES = WORK / "certificates"
ENVIRONMENTS = WORK / "venvs"
NODE = WORK / "npm"
SYSTEM_PYTHON = Path("/usr/bin/python3")

UPSTREAM_PORT = 19000
TLS_PORT = 19443
FIRST_GATEWAY_PORT = 20001


def render_template(template: str, values: dict[str, object]) -> str:
    """Return the configuration `template` with every @NAME@ replaced by its value."""
    text = (CONFIGURATIONS / template).read_text()
    for name, value in values.items():
        text = text.replace(f"@{name}@", str(value))
    return text
