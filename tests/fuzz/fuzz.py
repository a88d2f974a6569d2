"""Fuzz the readers of foreign bytes. `python tests/fuzz/fuzz.py --seconds 60 --seed 1`.

With atheris (`make fuzz`) mutations follow the coverage of the code; without it, or with
`--random`, the seeds are mutated at random. An input that breaks a promise is saved below `found/`;
once it is fixed, it belongs among the seeds.
"""

import argparse
import importlib.util
import logging
import random
import re
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

HERE = Path(__file__).resolve().parent
SEEDS, FOUND = HERE / "seeds", HERE / "found"
NAMES = tuple(sorted(path.name for path in SEEDS.iterdir() if path.is_dir()))
INSTRUMENTED = ("sophia.adapters.upstreams", "sophia.http.v1", "sophia.serving.attempts")
MAX_BYTES = 20_000


def read_words(name: str) -> list[bytes]:
    """Return the words of a target that mutations insert, from its libFuzzer dictionary."""
    lines = re.findall(r'"(.*)"', (SEEDS / f"{name}.dict").read_text())
    return [line.encode().decode("unicode_escape").encode("latin-1") for line in lines]


def read_seeds(name: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((SEEDS / name).iterdir())]


def mutate(source: random.Random, seeds: list[bytes], words: list[bytes]) -> bytes:
    """Return a seed with bytes changed, words inserted, parts cut or repeated."""
    data = bytearray(source.choice(seeds))
    for _ in range(source.randrange(6)):
        at = source.randrange(len(data) + 1)
        until = min(len(data), at + source.randrange(1, 20))
        match source.randrange(5):
            case 0:
                data[at:at] = source.choice(words)
            case 1:
                del data[at:until]
            case 2:
                data[at:at] = data[at:until]
            case 3:
                data[at : at + 1] = bytes([source.randrange(256)])
            case _:
                data += source.choice(seeds)
    return bytes(data)


def fuzz_at_random(name: str, seconds: float, seed: int) -> tuple[int, int]:
    """Mutate the seeds of a target for `seconds`; return executions and crashes."""
    from targets import run_target

    source, seeds, words = random.Random(seed), read_seeds(name), read_words(name)
    executions = crashes = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        data = mutate(source, seeds, words)
        executions += 1
        try:
            run_target(name, data)
        except Exception:  # every exception that escapes is a finding
            crashes += 1
            FOUND.mkdir(exist_ok=True)
            path = FOUND / f"{name}-{seed}-{executions}"
            path.write_bytes(data)
            print(f"{traceback.format_exc()}  {path}", flush=True)
    return executions, crashes


def fuzz_by_coverage(name: str, seconds: float, seed: int) -> tuple[int, int]:
    """Run libFuzzer on a target in a process of its own, which ends at the first crash."""
    FOUND.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as corpus:
        options = (
            f"-max_total_time={seconds:.0f}", f"-seed={seed}", "-timeout=10", "-rss_limit_mb=2048",
            f"-max_len={MAX_BYTES}", f"-dict={SEEDS / name}.dict", f"-artifact_prefix={FOUND / name}-",
            "-print_final_stats=1",
        )  # fmt: skip
        command = (sys.executable, __file__, "--only", name, *options, corpus, str(SEEDS / name))
        done = subprocess.run(
            command, stderr=subprocess.STDOUT, stdout=subprocess.PIPE, check=False
        )
    output = done.stdout.decode(errors="replace")
    counted = re.search(r"number_of_executed_units: (\d+)", output)
    if done.returncode:
        print(output[-4000:], flush=True)
    return int(counted[1]) if counted else 0, int(done.returncode != 0)


def run_instrumented(name: str, arguments: list[str]) -> None:
    """Fuzz one target with atheris in this process; libFuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=list(INSTRUMENTED)):
        from targets import run_target
    atheris.Setup([sys.argv[0], *arguments], lambda data: run_target(name, data))
    atheris.Fuzz()


def main() -> int:
    """Fuzz the chosen targets one after the other; return 1 if one of them crashed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="time for each target")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--target", action="append", choices=NAMES, help="by default all")
    parser.add_argument("--random", action="store_true", help="mutate at random")
    parser.add_argument("--only", choices=NAMES, help=argparse.SUPPRESS)
    options, rest = parser.parse_known_args()
    logging.disable(logging.CRITICAL)
    if options.only:
        run_instrumented(options.only, rest)
    by_coverage = not options.random and importlib.util.find_spec("atheris") is not None
    fuzz = fuzz_by_coverage if by_coverage else fuzz_at_random
    total = 0
    for name in options.target or NAMES:
        executions, crashes = fuzz(name, options.seconds, options.seed)
        total += crashes
        print(f"{name}: {executions:,} executions, {crashes} crashes", flush=True)
    return 1 if total else 0


if __name__ == "__main__":
    sys.exit(main())
