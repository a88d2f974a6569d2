"""Reasons for the end of an answer, in the words of many servers and in those of OpenAI."""

from typing import Any

from sophia.adapters.upstreams.errors import parse_failure
from sophia.core.failures import FailureKind

_WORDS = {
    "stop": "stop end end_turn end_of_turn stop_sequence stop_token eos eos_token endoftext"
    " complete completed done finish finished success pause_turn",
    "length": "length max_tokens max_output_tokens max_new_tokens max_length max_tokens_reached"
    " model_length model_context_window_exceeded token_limit context_length truncated incomplete",
    "tool_calls": "tool_calls tool_call tool_use function_call",
    "content_filter": "content_filter content_filtered safety recitation blocklist blocked refusal"
    " prohibited_content spii image_safety image_prohibited_content guardrail_intervened"
    " guardrails language moderation sensitive",
    "error": "error",
}
_REASONS = {word: reason for reason, words in _WORDS.items() for word in words.split()}
_NONE = frozenset({"", "null", "none", "unspecified", "finish_reason_unspecified"})


def normalize_finish_reason(choice: dict[str, Any]) -> str | None:
    """Normalise `finish_reason` in place to a word that clients know; return it.

    An empty one is none. An unknown one is an error, since it may tell of an answer that was cut
    (vLLM's `abort`, DeepSeek's `insufficient_system_resource`): `native_finish_reason` has it.
    """
    native = choice.get("finish_reason")
    if native is None or (isinstance(native, str) and native.lower() in _NONE):
        choice["finish_reason"] = None
        return None
    reason = _REASONS.get(native.lower(), "error") if isinstance(native, str) else "error"
    content = choice.get("message") or choice.get("delta")
    if native == "function_call" and isinstance(content, dict) and content.get("function_call"):
        # The older form of a tool call, whose clients know its own reason.
        return "function_call"
    if reason != native:
        choice.setdefault("native_finish_reason", native)
        choice["finish_reason"] = reason
    return reason


def raise_choice_error(choice: dict[str, Any]) -> None:
    """Raise UpstreamFailure if a choice, with a normalised finish reason, reports an error."""
    error = choice.get("error")
    if not error and choice.get("finish_reason") != "error":
        return
    native = choice.get("native_finish_reason", "error")
    if not error:
        error = "the provider stopped with an error"
        if native != "error":
            error = f"the answer ended early, with the finish reason {str(native)[:100]!r}"
    raise parse_failure(error, FailureKind.IN_BAND)
