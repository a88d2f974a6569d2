"""The sandbox: a double of OpenRouter on loopback, scripted by tests and used without a key."""

from sophia.sandbox.api.bill import BilledGeneration, SandboxBill
from sophia.sandbox.response.connection import RecordedRequest
from sophia.sandbox.script import ScriptStep
from sophia.sandbox.server import ScriptedUpstream

__all__ = ["BilledGeneration", "RecordedRequest", "SandboxBill", "ScriptStep", "ScriptedUpstream"]
