"""Doubles that Sophia ships: the scripted upstream, which is also its sandbox."""

from sophia.testing.bill import Bill, BillRow
from sophia.testing.pace import Pace
from sophia.testing.script import Step
from sophia.testing.server import ScriptedUpstream
from sophia.testing.wire import Seen

__all__ = ["Bill", "BillRow", "Pace", "ScriptedUpstream", "Seen", "Step"]
