"""A PostgreSQL server for benchmarks: that of the tests, from a wheel, which syncs its files."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_TESTS = Path(__file__).parents[1] / "tests"


@contextmanager
def run_postgres_database(*, empty: bool = False) -> Iterator[str]:
    """Yield the address of a new database with the current tables, or without any."""
    if str(_TESTS) not in sys.path:
        sys.path.append(str(_TESTS))
    from postgres_server import run_postgres

    with run_postgres(is_durable=True) as server:
        yield server.create_database(empty=empty)
