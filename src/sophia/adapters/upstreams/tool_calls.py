"""Tool calls of upstreams, each with the id, type and index that clients build a call by."""

from collections import defaultdict
from typing import Any

from sophia.adapters.upstreams.json_text import encode_repaired
from sophia.core.failures import FailureKind, UpstreamFailure

_MAX_CALLS = 10_000


def repair_tool_calls(message: dict[str, Any], request_id: str) -> None:
    """Give the calls of a whole message, in place, text as arguments, an id and a type."""
    calls = message["tool_calls"] = _keep_objects(message["tool_calls"])
    for number, call in enumerate(calls):
        _repair_arguments(call)
        _fill_identity(call, request_id, number)


class ToolCallIndexes:
    """Indexes of the calls of one streamed choice.

    An id that is new begins a call, whatever its index: some servers give all parallel calls the
    index 0. A part without an id goes on with the call that its index, or else the last one, has.
    """

    __slots__ = ("_by_id", "_by_index", "_next", "_request_id")

    def __init__(self, request_id: str) -> None:
        self._request_id = request_id
        self._by_id: dict[str, int] = {}
        # The call that each index of the upstream stands for now.
        self._by_index: dict[int, int] = {}
        self._next = 0

    def number(self, delta: dict[str, Any]) -> None:
        """Number the calls of a delta in place. Raises UpstreamFailure for too many in all."""
        delta["tool_calls"] = calls = _keep_objects(delta["tool_calls"])
        if len(calls) > _MAX_CALLS:
            raise UpstreamFailure(FailureKind.MALFORMED, "the tool calls do not end")
        for call in calls:
            _repair_arguments(call)
            name, given = call.get("id"), call.get("index")
            given = given if type(given) is int and given >= 0 else None
            known = self._find(name, given, call)
            if known is None:
                known = self._next
                _fill_identity(call, self._request_id, known)
                self._by_id[call["id"]] = known
                self._next += 1
                if self._next > _MAX_CALLS:
                    raise UpstreamFailure(FailureKind.MALFORMED, "the tool calls do not end")
            if given is not None:
                self._by_index[given] = known
            call["index"] = known

    def _find(self, name: object, given: int | None, call: dict[str, Any]) -> int | None:
        """Return the number of the call that a part belongs to, None when it begins one."""
        if isinstance(name, str) and name:
            return self._by_id.get(name)
        if given is not None:
            return self._by_index.get(given)
        function = call.get("function")
        begins = isinstance(function, dict) and bool(function.get("name"))
        return None if begins or not self._next else self._next - 1


def new_indexes(request_id: str) -> defaultdict[int, ToolCallIndexes]:
    """Return the indexes of each choice of a stream, made at its first call."""
    return defaultdict(lambda: ToolCallIndexes(request_id))


def _keep_objects(calls: object) -> list[dict[str, Any]]:
    return [call for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []


def _repair_arguments(call: dict[str, Any]) -> None:
    function = call.get("function")
    if isinstance(function, dict):
        arguments = function.get("arguments")
        if arguments is not None and not isinstance(arguments, str):
            function["arguments"] = encode_repaired(arguments).decode()


def _fill_identity(call: dict[str, Any], request_id: str, number: int) -> None:
    if not (isinstance(call.get("id"), str) and call["id"]):
        call["id"] = f"call_{request_id.removeprefix('req-')}_{number}"
    if not isinstance(call.get("type"), str):
        call["type"] = "function"
