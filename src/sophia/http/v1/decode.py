"""Read a body: the fields Sophia acts on, checked; everything else, as it came."""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple, TypeVar

import msgspec

from sophia.core.calls import Fields
from sophia.core.errors import BadRequest
from sophia.core.money import nano_from_usd
from sophia.http.v1.bodies import (
    ChatBody,
    Common,
    CompletionBody,
    EmbeddingBody,
    Part,
    SophiaHints,
)
from sophia.http.v1.manner import manner_of
from sophia.http.wire import Headers
from sophia.routing.nouns import Hints, Prompt
from sophia.routing.target import AUTO

TEXT_CHARS = 2000
SYSTEM_CHARS = 500
_T = TypeVar("_T")
_HEADER_PREFIX = b"x-sophia-"
_FRAME_BYTES = len('{"role":"","content":""}') - 4
_NO_PROMPT = frozenset(
    {
        "max_tokens",
        "max_completion_tokens",
        "temperature",
        "top_p",
        "top_k",
        "n",
        "seed",
        "stop",
        "stream_options",
        "user",
        "session_id",
        "logprobs",
        "top_logprobs",
        "frequency_penalty",
        "presence_penalty",
        "reasoning",
        "reasoning_effort",
        "provider",
        "usage",
        "metadata",
        "trace",
        "logit_bias",
        "tool_choice",
        "parallel_tool_calls",
        "service_tier",
    }
)
_NOT_FORWARDED = ("model", "models", "route", "stream", "sophia")
_WHERE = re.compile(r"^(?P<problem>.*?)(?: - at `\$\.?(?P<path>[^`]*)`)?$", re.DOTALL)

_chat = msgspec.json.Decoder(ChatBody)
_completion = msgspec.json.Decoder(CompletionBody)
_embedding = msgspec.json.Decoder(EmbeddingBody)
_shallow = msgspec.json.Decoder(dict[str, msgspec.Raw])


class Understood(NamedTuple):
    """A body in Sophia's terms; `fields` are the client's own, ready to be sent on.

    In the order of `serving.request.Request`, whose second half this is.
    """

    model: str
    others: tuple[str, ...]
    stream: bool
    fields: Fields
    prompt: Prompt
    hints: Hints
    max_tokens_field: str = "max_tokens"
    annotate: bool = True
    include_usage: bool = True


def decoded(decoder: "msgspec.json.Decoder[_T]", body: bytes) -> _T:
    """Return `body` as the decoder's type. Raises BadRequest with the place and the problem."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        match = _WHERE.match(str(error))
        path = match["path"] if match and match["path"] else None
        problem = match["problem"] if match else str(error)
        where = f"`{path}`: " if path else ""
        raise BadRequest(f"{where}{problem[:1].lower()}{problem[1:]}.", param=path) from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        what = str(error) if body else "it is empty"
        raise BadRequest(f"The body is not JSON: {what[:300]}.") from None


def chat(body: bytes, headers: Headers) -> Understood:
    """Read the body of a chat completion. Raises BadRequest."""
    read = decoded(_chat, body)
    fields = _fields(body)
    form = read.response_format.type if read.response_format else ""
    extra = _size(fields.get("tools")) + _size(fields.get("response_format"))
    prompt = _prompt(read, form, extra, _prompt_bytes(fields, len(read.messages)))
    options = read.stream_options
    return _understood(
        read,
        headers,
        fields,
        prompt,
        "max_completion_tokens" if read.max_completion_tokens else "max_tokens",
        include_usage=options is None or options.include_usage is not False,
    )


def completion(body: bytes, headers: Headers) -> Understood:
    """Read the body of a legacy completion. Raises BadRequest."""
    read = decoded(_completion, body)
    texts = [read.prompt] if isinstance(read.prompt, str) else read.prompt
    _check_texts("prompt", texts)
    choices = max(read.n or 1, read.best_of or 1) * len(texts)
    prompt = _of_texts(texts, read.max_tokens, choices)
    options = read.stream_options
    return _understood(
        read,
        headers,
        _fields(body),
        prompt,
        "max_tokens",
        include_usage=options is None or options.include_usage is not False,
    )


def embedding(body: bytes, headers: Headers) -> Understood:
    """Read the body of an embeddings request. Raises BadRequest."""
    read = decoded(_embedding, body)
    if read.stream:
        raise BadRequest("`stream`: embeddings come whole; leave it out.", param="stream")
    values = [read.input] if isinstance(read.input, str) else read.input
    texts = [value for value in values if isinstance(value, str)]
    others = [value for value in values if not isinstance(value, str)]
    tokens = sum(len(value) if isinstance(value, list) else 1 for value in others)
    if not tokens:
        _check_texts("input", texts)
    prompt = _of_texts(texts or [""], None, 1, extra_bytes=tokens)
    return _understood(read, headers, _fields(body), prompt, "max_tokens")


def _understood(  # noqa: PLR0913 - the one place where all parts of a body meet
    read: Common,
    headers: Headers,
    fields: Fields,
    prompt: Prompt,
    max_tokens_field: str,
    *,
    include_usage: bool = True,
) -> Understood:
    given = read.sophia or _hinted(headers)
    model = read.model or (read.models[0] if read.models else AUTO)
    others = tuple(name for name in read.models or () if name != model)
    return Understood(
        model,
        others,
        bool(read.stream),
        fields,
        prompt,
        _hints(given, read.session_id),
        max_tokens_field,
        given is None or given.annotate is not False,
        include_usage,
    )


def _fields(body: bytes) -> dict[str, msgspec.Raw]:
    fields = _shallow.decode(body)
    for name in _NOT_FORWARDED:
        if name in fields:
            del fields[name]
    return fields


def _size(raw: object) -> int:
    return len(memoryview(raw)) if isinstance(raw, msgspec.Raw) else 0


def _prompt_bytes(fields: Mapping[str, msgspec.Raw], messages: int) -> int:
    """Return the bytes of all fields that a provider may make prompt tokens of."""
    size = -_FRAME_BYTES * messages
    for name, raw in fields.items():
        if name not in _NO_PROMPT:
            size += len(memoryview(raw))
    return size


def _weight(medium: dict[str, msgspec.Raw] | str | None) -> int:
    """Return the bytes of an attachment, which are no text for a tokenizer."""
    if isinstance(medium, dict):
        return sum(map(_size, medium.values()))
    return len(medium) if medium else 0


def _empty(number: int) -> BadRequest:
    return BadRequest(
        f"`messages[{number}].content` is empty; a user message needs text or parts.",
        param=f"messages[{number}].content",
    )


def _check_texts(name: str, texts: list[str]) -> None:
    if not texts or not all(texts):
        raise BadRequest(f"`{name}` is empty; give it text.", param=name)


class _Parts:
    """What the parts of messages add up to beside their text."""

    __slots__ = ("audio", "bytes", "files", "images")

    def __init__(self) -> None:
        self.images = self.files = self.audio = self.bytes = 0

    def text(self, parts: list[Part]) -> str:
        """Count `parts` and return their text."""
        for part in parts:
            kind = part.type
            self.images += kind == "image_url" or kind == "input_image"
            self.audio += kind == "input_audio"
            self.files += kind == "file" or kind == "video_url"
            if kind != "text":
                media = (part.image_url, part.input_audio, part.file, part.video_url)
                self.bytes += sum(map(_weight, media))
        return "\n".join([part.text for part in parts if part.text])


def _prompt(read: ChatBody, form: str, extra_bytes: int, body_bytes: int) -> Prompt:
    """Return what routing may see. Raises BadRequest for an empty user message."""
    chars, size = 0, extra_bytes
    text = system = ""
    parts = _Parts()
    for number, message in enumerate(read.messages):
        content, role = message.content, message.role
        if type(content) is str:
            said = content
        else:
            said = parts.text(content) if content else ""  # type: ignore[arg-type] # no str here
        if role == "user":
            if not content or ((not said or said.isspace()) and type(content) is str):
                raise _empty(number)
            text = said
        elif not system and (role == "system" or role == "developer"):
            system = said
        length = len(said)
        chars += length
        size += length if said.isascii() else len(said.encode("utf-8", "replace"))
        if message.tool_calls:
            size += sum(map(_size, message.tool_calls))
    manner = manner_of(read)
    return Prompt(
        _capped(text),
        system[:SYSTEM_CHARS],
        chars,
        size,
        len(read.messages),
        parts.images,
        parts.files,
        parts.audio,
        len(read.tools) if read.tools else 0,
        form == "json_schema",
        form == "json_object",
        bool(read.logprobs),
        manner.reasoning,
        max(read.max_completion_tokens or 0, read.max_tokens or 0) or None,
        read.n or 1,
        body_bytes - parts.bytes,
        read.messages[-1].role == "tool",
        manner.effort,
        manner.providers,
    )


def _capped(text: str) -> str:
    if len(text) <= TEXT_CHARS:
        return text
    half = TEXT_CHARS // 2
    return text[:half] + text[-half:]


def _of_texts(
    texts: Iterable[str], max_tokens: int | None, choices: int, extra_bytes: int = 0
) -> Prompt:
    whole = list(texts)
    return Prompt(
        text=_capped(whole[-1]),
        chars=sum(map(len, whole)),
        utf8_bytes=sum(len(text.encode("utf-8", "replace")) for text in whole) + extra_bytes,
        turns=len(whole),
        max_tokens=max_tokens,
        choices=choices,
    )


def _hinted(headers: Headers) -> SophiaHints | None:
    """Read `x-sophia-*` headers; a header that names no hint is left alone."""
    given: dict[str, object] = {}
    for name, value in headers:
        if name.startswith(_HEADER_PREFIX):
            hint = name[len(_HEADER_PREFIX) :].decode("latin-1").replace("-", "_")
            if hint in SophiaHints.__struct_fields__:
                text = value.decode("latin-1").strip()
                several = [part.strip() for part in text.split(",")]
                given[hint] = several if hint == "models" else text
    if not given:
        return None
    try:
        return msgspec.convert(given, SophiaHints, strict=False)
    except msgspec.ValidationError as error:
        match = _WHERE.match(str(error))
        hint = (match["path"] or "") if match else ""
        header = f"x-sophia-{hint.replace('_', '-')}"
        problem = match["problem"] if match else str(error)
        raise BadRequest(
            f"Header `{header}`: {problem[:1].lower()}{problem[1:]}.", param=header
        ) from None


_NO_HINTS = Hints()


def _hints(given: SophiaHints | None, session_id: str | None) -> Hints:
    if given is None:
        return _NO_HINTS if session_id is None else Hints(session_id=session_id)
    cost = given.max_cost_usd
    return Hints(
        task_type=given.task_type,
        complexity=given.complexity,
        max_latency_ms=given.max_latency_ms,
        cost_sensitive=given.cost_sensitive,
        min_quality=given.min_quality,
        max_cost_nano=None if cost is None else nano_from_usd(cost),
        models=tuple(given.models or ()),
        session_id=given.session_id or session_id,
        cascade=given.cascade,
        webhook=given.webhook,
        dial=given.dial,
        explore=given.explore is not False,
    )
