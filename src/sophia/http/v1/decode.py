"""Parse request bodies: the fields that Sophia acts on are checked, all others untouched."""

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import msgspec

from sophia.core.calls import Endpoint
from sophia.core.errors import BadRequest, UnsupportedEncoding
from sophia.core.money import nano_from_usd
from sophia.http.v1.bodies import (
    ChatBody,
    CompletionBody,
    ContentPart,
    EmbeddingBody,
    RequestBody,
    SophiaHints,
)
from sophia.http.v1.call_mode import parse_call_mode
from sophia.http.v1.json_limits import MAX_DEPTH, build_depth_error, check_depth, decode_fields
from sophia.http.wire import HttpRequest
from sophia.routing.model_name import AUTO_MODEL, apply_model_name
from sophia.routing.types import Hints, Prompt
from sophia.serving.request import Request
from sophia.tenants.keys import Principal

MAX_TEXT_CHARS = 2000
MAX_SYSTEM_CHARS = 500
_T = TypeVar("_T")
_RawFields = dict[str, msgspec.Raw]
_HEADER_PREFIX = b"x-sophia-"
_RENAMED_HINTS = {"dial": "quality_bias"}
_MESSAGE_OVERHEAD_BYTES = len('{"role":"","content":""}') - 4
_NON_PROMPT_NAMES = (
    "max_tokens max_completion_tokens temperature top_p top_k n seed stop stream_options user"
    " session_id logprobs top_logprobs frequency_penalty presence_penalty reasoning"
    " reasoning_effort provider usage metadata trace logit_bias tool_choice"
    " parallel_tool_calls service_tier"
)
_NON_PROMPT_FIELDS = frozenset(_NON_PROMPT_NAMES.split())
_NOT_FORWARDED = ("model", "models", "route", "stream", "sophia")
_NO_HINTS = Hints()
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_HALF_CHARACTER = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])"
    rb"|(?<!\\u[dD][89abAB][0-9a-fA-F]{2})\\u[dD][c-fC-F][0-9a-fA-F]{2}"
)
_DECODERS: Mapping[Endpoint, "msgspec.json.Decoder[RequestBody]"] = {
    "chat/completions": msgspec.json.Decoder(ChatBody),
    "completions": msgspec.json.Decoder(CompletionBody),
    "embeddings": msgspec.json.Decoder(EmbeddingBody),
}


def parse_request(  # noqa: PLR0913 - the facts of a request, each by name
    endpoint: Endpoint,
    incoming: HttpRequest,
    id: int,
    principal: Principal,
    arrived_at: float,
    resolve_alias: Callable[[str], str],
) -> Request:
    """Return the request in `incoming`; its model is the one that an alias stands for.

    Raises BadRequest.
    """
    incoming.body = incoming.body.removeprefix(_BYTE_ORDER_MARK)
    try:
        body = decode_body(_DECODERS[endpoint], incoming.body)
    except BadRequest:
        _check_encoding(incoming.fields)
        raise
    fields = decode_fields(incoming.body)
    for name in _NOT_FORWARDED:
        fields.pop(name, None)
    prompt = _build_prompt(body, fields)
    if len(incoming.body) - prompt.chars > 2 * MAX_DEPTH:
        # Beside its text there is room for so many brackets.
        check_depth(incoming.body)
    hints = body.sophia or _parse_hint_headers(incoming.fields)
    model = resolve_alias(body.model or (body.models[0] if body.models else AUTO_MODEL))
    longest = body.max_completion_tokens if isinstance(body, ChatBody) else None
    options = None if isinstance(body, EmbeddingBody) else body.stream_options
    return Request(
        id=id,
        endpoint=endpoint,
        principal=principal,
        arrived_at=arrived_at,
        model=model,
        fallback_models=_list_fallback_models(body.models, model, resolve_alias)
        if body.models
        else (),
        stream=bool(body.stream),
        fields=fields,
        prompt=prompt,
        hints=apply_model_name(model, _build_hints(hints, body.session_id, resolve_alias)),
        max_tokens_field="max_completion_tokens" if longest else "max_tokens",
        annotate=hints is None or hints.annotate is not False,
        include_usage=None if options is None else options.include_usage,
    )


def _list_fallback_models(
    names: Sequence[str], model: str, resolve_alias: Callable[[str], str]
) -> tuple[str, ...]:
    return tuple([each for each in map(resolve_alias, names) if each != model])


def decode_body(decoder: "msgspec.json.Decoder[_T]", body: bytes) -> _T:
    """Return `body` as the decoder's type. Raises BadRequest with the place and the problem."""
    try:
        if not body.isascii():
            # The decoder does not look into fields that it skips.
            body.decode()
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        problem, path = _split_error(error)
        place = f"`{path}`: " if path else ""
        hint = _suggest_hint(problem) if path == "sophia" else ""
        raise BadRequest(f"{place}{problem}.{hint}", param=path or None) from None
    except RecursionError:
        raise build_depth_error() from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        problem = _describe_problem(error, body)
        raise BadRequest(f"The body is not JSON: {problem[:300]}.") from None


def _describe_problem(error: Exception, body: bytes) -> str:
    if not body:
        return "it is empty"
    if half := _HALF_CHARACTER.search(body):
        name, place = half[0].decode(), half.start()
        return f"{name} at byte {place:,} is half of a character (a lone surrogate)"
    return str(error)


def _check_encoding(fields: Mapping[bytes, bytes]) -> None:
    """Raise UnsupportedEncoding when a body that is no JSON is a compressed one."""
    coding = fields.get(b"content-encoding", b"identity").decode("latin-1")
    if coding.strip().lower() != "identity":
        raise UnsupportedEncoding(
            f"The body has the Content-Encoding {coding[:40]!r}; send it uncompressed."
        )


def _split_error(error: msgspec.ValidationError) -> tuple[str, str]:
    """Return the problem and the path of the field that has it, empty for the whole body."""
    problem, _, path = str(error).partition(" - at `$")
    return problem[:1].lower() + problem[1:], path.strip(".`")


def _suggest_hint(problem: str) -> str:
    """Return a suggestion for a problem that is an unknown hint."""
    name = problem.partition("unknown field `")[2][:64].rstrip("`")
    known = SophiaHints.__struct_fields__
    near = _RENAMED_HINTS.get(name) or "".join(difflib.get_close_matches(name, known, n=1))
    return f" Did you mean {near}?" if near else ""


def _build_prompt(body: RequestBody, fields: _RawFields) -> Prompt:
    """Return the part of a request that routing may see. Raises BadRequest for an empty one."""
    if isinstance(body, ChatBody):
        return _build_chat_prompt(body, fields)
    if isinstance(body, CompletionBody):
        values = [body.prompt] if isinstance(body.prompt, str) else body.prompt
        choices = max(body.n or 1, body.best_of or 1) * _count_prompts(values)
        return _build_text_prompt("prompt", values, body.max_tokens, choices)
    if body.stream:
        raise BadRequest("`stream`: embeddings are not streamed; leave it out.", param="stream")
    values = [body.input] if isinstance(body.input, str) else body.input
    return _build_text_prompt("input", values, None, _count_prompts(values))


def _count_prompts(values: Sequence[str | int | list[int]]) -> int:
    # A list of numbers is one prompt in tokens, a list of lists one prompt each.
    return 1 if any(isinstance(value, int) for value in values) else len(values)


def _raw_size(raw: object) -> int:
    return len(memoryview(raw)) if isinstance(raw, msgspec.Raw) else 0


def _prompt_bytes(fields: _RawFields) -> int:
    """Return the bytes of all fields that a provider may turn into prompt tokens."""
    return sum(
        [len(memoryview(raw)) for name, raw in fields.items() if name not in _NON_PROMPT_FIELDS]
    )


def _attachment_bytes(medium: _RawFields | str | None) -> int:
    """Return the bytes of an attachment, which never reaches a tokenizer as text."""
    if isinstance(medium, dict):
        return sum(map(_raw_size, medium.values()))
    return len(medium) if medium else 0


class _PartCounter:
    """Totals of the parts of messages, apart from their text."""

    __slots__ = ("audio", "bytes", "files", "images")

    def __init__(self) -> None:
        self.images = self.files = self.audio = self.bytes = 0

    def add(self, parts: list[ContentPart]) -> str:
        """Count `parts` and return their text."""
        for part in parts:
            kind = part.type
            self.images += kind == "image_url" or kind == "input_image"
            self.audio += kind == "input_audio"
            self.files += kind == "file" or kind == "video_url"
            if kind != "text":
                media = (part.image_url, part.input_audio, part.file, part.video_url)
                self.bytes += sum(map(_attachment_bytes, media))
        return "\n".join([part.text for part in parts if part.text])


_NO_PARTS = _PartCounter()


def _build_chat_prompt(body: ChatBody, fields: _RawFields) -> Prompt:
    body_bytes = _prompt_bytes(fields)
    # What is not in a message: tools, documents, a schema.
    chars, size = 0, body_bytes - _raw_size(fields.get("messages"))
    last_user_text = system = ""
    parts = _NO_PARTS
    for message in body.messages:
        content, role = message.content, message.role
        if isinstance(content, str):
            text = content
        else:
            parts = _PartCounter() if parts is _NO_PARTS else parts
            text = parts.add(content or [])
        if role == "user":
            last_user_text = text
        elif not system and (role == "system" or role == "developer"):
            system = text
        chars += len(text)
        size += len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
        if message.tool_calls:
            size += sum(map(_raw_size, message.tool_calls))
    form = body.response_format.type if body.response_format else ""
    reasoning, effort, preference = parse_call_mode(body)
    return Prompt(
        text=_truncate(last_user_text),
        system=system[:MAX_SYSTEM_CHARS],
        chars=chars,
        utf8_bytes=size,
        turns=len(body.messages),
        images=parts.images,
        files=parts.files,
        audio=parts.audio,
        tools=len(body.tools) if body.tools else 0,
        schema=form == "json_schema",
        json_object=form == "json_object",
        logprobs=bool(body.logprobs),
        reasoning=reasoning,
        max_tokens=max(body.max_completion_tokens or 0, body.max_tokens or 0) or None,
        choice_count=body.n or 1,
        body_bytes=body_bytes - _MESSAGE_OVERHEAD_BYTES * len(body.messages) - parts.bytes,
        after_tool_result=body.messages[-1].role == "tool",
        reasoning_effort=effort,
        provider_preference=preference,
    )


def _truncate(text: str) -> str:
    half = MAX_TEXT_CHARS // 2
    return text if len(text) <= MAX_TEXT_CHARS else text[:half] + text[-half:]


def _build_text_prompt(
    name: str, values: Sequence[str | int | list[int]], max_tokens: int | None, choices: int
) -> Prompt:
    """Return the prompt of texts and tokens. Raises BadRequest without any."""
    texts = [value for value in values if isinstance(value, str)]
    others = [value for value in values if not isinstance(value, str)]
    token_count = sum(len(value) if isinstance(value, list) else 1 for value in others)
    if not token_count and not (texts and all(texts)):
        raise BadRequest(f"`{name}` is empty; give it text.", param=name)
    texts = texts or [""]
    return Prompt(
        text=_truncate(texts[-1]),
        chars=sum(map(len, texts)),
        utf8_bytes=sum(len(text.encode("utf-8", "replace")) for text in texts) + token_count,
        turns=len(texts),
        max_tokens=max_tokens,
        choice_count=choices,
    )


def _parse_hint_headers(fields: Mapping[bytes, bytes]) -> SophiaHints | None:
    """Parse `x-sophia-*` headers; one that names no hint is ignored."""
    if _HEADER_PREFIX not in b"\n".join(fields):
        return None
    values: dict[str, object] = {}
    for name, value in fields.items():
        if name.startswith(_HEADER_PREFIX):
            hint = name[len(_HEADER_PREFIX) :].decode("latin-1").replace("-", "_")
            if hint in SophiaHints.__struct_fields__:
                text = value.decode("latin-1").strip()
                models = [part.strip() for part in text.split(",")]
                values[hint] = models if hint == "models" else text
    if not values:
        return None
    try:
        return msgspec.convert(values, SophiaHints, strict=False)
    except msgspec.ValidationError as error:
        problem, path = _split_error(error)
        header = f"x-sophia-{path.replace('_', '-')}"
        raise BadRequest(f"Header `{header}`: {problem}.", param=header) from None


def _build_hints(
    hints: SophiaHints | None, session_id: str | None, resolve_alias: Callable[[str], str]
) -> Hints:
    if hints is None:
        return _NO_HINTS if session_id is None else Hints(session_id=session_id)
    cost = hints.max_cost_usd
    return Hints(
        task_type=hints.task_type,
        complexity=hints.complexity,
        max_latency_ms=hints.max_latency_ms,
        cost_sensitive=hints.cost_sensitive,
        min_quality=hints.min_quality,
        strict=hints.strict is True,
        max_cost_nano=None if cost is None else nano_from_usd(cost),
        models=tuple(map(resolve_alias, hints.models or ())),
        session_id=hints.session_id or session_id,
        cascade=hints.cascade,
        webhook=hints.webhook,
        quality_bias=hints.quality_bias,
        explore=hints.explore is not False,
        on_cut=hints.on_cut,
        on_too_long=hints.on_too_long or "error",
        cut_repetition=hints.cut_repetition is True,
        hedge=hints.hedge is True,
    )
