"""Checks of the store for `sophia doctor`: ledger, keys, what dead processes left, the server."""

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from sophia.cli.doctor_machine import DoctorFinding
from sophia.compose.keys import find_server, is_served
from sophia.compose.offline import StoreAddress, find_store, inspect, leftovers, report
from sophia.config import Settings
from sophia.core.errors import ConfigError, Unavailable
from sophia.core.money import format_usd

_MAX_BEHIND_S = 30
_SHOWN = 3
"""Number of leases and of holds that are named."""


def check_store(settings: Settings) -> Iterator[DoctorFinding]:
    """Yield the findings; changes nothing."""
    data, address = Path(settings.data_dir), find_store(settings)
    served, is_current = is_served(data), False
    if not address.is_missing():
        findings = list(_check_ledger(address))
        is_current = findings[0].status == "ok"
        yield from findings
    elif data.is_dir():
        yield DoctorFinding("ok", "ledger", "none yet; `sophia serve` creates one")
    if journals := list(leftovers.list_left_journals(data)):
        yield _describe_journals(data, journals, served=served)
    if is_current:
        yield from _check_leftovers(address, data, served=served)
    if served:
        process = find_server(data)
        name = f"process {process}" if process else "another process"
        detail = f"{name} serves from {data.absolute()}; a second Sophia would be refused"
        yield DoctorFinding("ok", "serving", detail)


def _check_ledger(address: StoreAddress) -> Iterator[DoctorFinding]:
    try:
        check = inspect.inspect_ledger(address)
    except report.LedgerDamaged as error:
        yield _describe_damage(address, str(error))
        return
    except report.LedgerUnreadable as error:
        fix = "correct that, then run `sophia doctor` again"
        yield DoctorFinding("error", "ledger", f"{address} cannot be read: {error}", fix)
        return
    except ConfigError as error:
        yield DoctorFinding("error", "ledger", str(error))
        return
    if check.quick_check != "ok":
        yield _describe_damage(address, check.quick_check)
        return
    yield _check_schema(address, check)
    if check.active_keys:
        yield DoctorFinding("ok", "keys", f"{check.active_keys} active")
    else:
        yield DoctorFinding("warning", "keys", "none active", "sophia keys create --name me")


def _describe_damage(address: StoreAddress, problem: str) -> DoctorFinding:
    path = address.path
    fix = f"stop Sophia, keep a copy, then: sqlite3 {path} .recover | sqlite3 repaired.db"
    return DoctorFinding("error", "ledger", f"{path} is damaged: {problem}", fix)


def _check_schema(address: StoreAddress, check: inspect.LedgerCheck) -> DoctorFinding:
    if check.revision == check.latest_revision:
        where = f"on {address}" if address.url else "intact"
        return DoctorFinding("ok", "ledger", f"{where}, schema {check.latest_revision}")
    if check.revision is None:
        fix = "`sophia serve` or `sophia db upgrade` creates them"
        return DoctorFinding("warning", "ledger", f"{address} has no tables yet", fix)
    detail = f"{address} has schema {check.revision}, this release has {check.latest_revision}"
    if check.revision > check.latest_revision:
        fix = "install the release of Sophia that wrote it, or a newer one"
        return DoctorFinding("error", "ledger", detail, fix)
    fix = "`sophia serve` or `sophia db upgrade` brings it up to date; back it up before"
    return DoctorFinding("warning", "ledger", detail, fix)


def _describe_journals(
    data: Path, journals: Sequence[leftovers.LeftJournal], *, served: bool
) -> DoctorFinding:
    records, size = sum(one.records for one in journals), sum(one.size for one in journals)
    numbers = ", ".join(str(one.worker) for one in journals)
    detail = (
        f"{data / 'journal'} has {records:,} records ({size:,} bytes) of dead workers ({numbers}) "
        "that may not be in the ledger"
    )
    if unreadable := sum(one.unreadable for one in journals):
        detail += f", and {unreadable:,} bytes that are no whole record"
    if served:
        fix = "Sophia, which runs, applies them within a second; if they stay, its log says why"
    else:
        fix = "keep the folder and run `sophia serve` on it, which applies them"
    return DoctorFinding("warning", "journals", detail, fix)


def _check_leftovers(address: StoreAddress, data: Path, *, served: bool) -> Iterator[DoctorFinding]:
    now = time.time()
    today = datetime.fromtimestamp(now, UTC).date().isoformat()
    try:
        left = leftovers.find_leftovers(address, data, today)
    except Unavailable as error:
        yield DoctorFinding("error", "leases", str(error), "run `sophia doctor` again")
        return
    here = [lease for lease in left.leases if lease.unseen_s is None]
    elsewhere = [lease for lease in left.leases if lease.unseen_s is not None]
    if here:
        fix = "run `sophia serve` on this folder, which ends them"
        if served:
            fix = "Sophia, which runs, ends them within a second; if they stay, its log says why"
        yield _describe_leases("dead workers of this folder", here, fix)
    if elsewhere:
        fix = (
            "start Sophia on that machine again; once another one has run for a minute, it takes "
            "those workers for dead, and the amounts stay held until the day ends (UTC)"
        )
        yield _describe_leases("workers of other machines that do not run", elsewhere, fix)
    if left.holds:
        yield _describe_holds(left.holds)
    behind = left.newest_ms / 1000 - now
    if behind > _MAX_BEHIND_S:
        yield _describe_clock(left.newest_ms, behind)


def _describe_leases(whose: str, leases: Sequence[leftovers.LeftLease], fix: str) -> DoctorFinding:
    named = [
        f"worker {one.worker}{_describe_absence(one.unseen_s)} has {format_usd(one.nano)} of "
        f"{_name_account(one.account, one.key)} for {one.window}"
        for one in leases
    ]
    detail = f"parts of budgets are leased to {whose}: {_join(named)}"
    return DoctorFinding("warning", "leases", detail, fix)


def _describe_holds(holds: Sequence[leftovers.LeftHold]) -> DoctorFinding:
    named = [f"{format_usd(one.nano)} of {_name_account(one.account, one.key)}" for one in holds]
    detail = (
        f"{_join(named)} stays held until the day ends (UTC): a machine that had leased it went "
        "down or was lost, and with it perhaps the last records"
    )
    fix = "to spend as much today: sophia keys update KEY_ID --daily-budget-usd N"
    return DoctorFinding("warning", "leases", detail, fix)


def _describe_clock(newest_ms: int, behind: float) -> DoctorFinding:
    newest = datetime.fromtimestamp(newest_ms / 1000, UTC)
    detail = (
        f"{behind:,.0f} s behind the newest row of the ledger ({newest:%Y-%m-%d %H:%M:%S} UTC): it "
        "was set back, or was ahead before; days and budgets turn at the wrong time"
    )
    return DoctorFinding("warning", "clock", detail, "switch on time synchronisation (NTP)")


def _describe_absence(seconds: float | None) -> str:
    return f" (not seen for {seconds:,.0f} s)" if seconds else ""


def _name_account(account: str, key: str) -> str:
    return f"key {key} ({account})" if key else account


def _join(named: Sequence[str]) -> str:
    more = len(named) - _SHOWN
    return "; ".join(named[:_SHOWN]) + (f"; and {more:,} more" if more > 0 else "")
