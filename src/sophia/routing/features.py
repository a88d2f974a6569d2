"""What a request looks like to routing: counts and a glance at capped text, never a full sweep."""

from sophia.routing.complexity import Cues, estimate, figures
from sophia.routing.nouns import TASK_TYPES, Features, Hints, Prompt, TaskType
from sophia.routing.vocabulary import (
    ANALYSIS,
    CJK_MARKS,
    CODE_MARKS,
    CODING,
    CREATIVE,
    DEMANDING,
    DENSE,
    MATHS_MARKS,
    NOTHING,
    VOCABULARY,
    WORDS,
)

HEAD_CHARS = 440
TAIL_CHARS = 200
# Wide strings are several times slower to search, and wide scripts say more in fewer characters.
WIDE_HEAD_CHARS, WIDE_TAIL_CHARS = 240, 100
SYSTEM_CHARS = 120
SCRIPT_CHARS = 24
LOOKED_AT = HEAD_CHARS + TAIL_CHARS + SYSTEM_CHARS + 2

DEFAULT_LATENCY_MS = 5000
IMAGE_TOKENS, IMAGE_BOUND = 1000, 6000
FILE_TOKENS, FILE_BOUND = 3000, 30000
AUDIO_TOKENS, AUDIO_BOUND = 500, 10000
TOOL_TOKENS, TOOLING_BOUND = 90, 1000
MESSAGE_BOUND = 8

_GENERAL_PRIOR = 1.0
_EXPECTED_OUTPUT: dict[TaskType, int] = {
    "coding": 700,
    "analysis": 600,
    "creative": 700,
    "general": 300,
}
_TO_SPACES = str.maketrans(dict.fromkeys(".,;:?!()[]{}\"'`/\\|<>*=\n\t", " "))


def looked_at(prompt: Prompt) -> str:
    """Return the only text that routing reads, lower-cased: at most `LOOKED_AT` characters.

    An instruction stands at the beginning or the end of a message, hardly ever in the middle.
    """
    text = prompt.text
    head, tail = HEAD_CHARS, TAIL_CHARS
    if not text.isascii():
        head, tail = WIDE_HEAD_CHARS, WIDE_TAIL_CHARS
    if len(text) > head + tail:
        text = f"{text[:head]} {text[-tail:]}"
    if prompt.system:
        text = f"{text} {prompt.system[:SYSTEM_CHARS]}"
    return text.lower()


def extract(prompt: Prompt, hints: Hints) -> Features:
    """Return the features of a request; what `hints` declare is taken, the rest is estimated."""
    text = looked_at(prompt)
    sighting = _Sighting(text)
    declared = hints.task_type
    task, confidence = (declared, 1.0) if declared else sighting.task()
    complexity = hints.complexity
    if complexity is None:
        complexity = estimate(prompt, sighting.figures(prompt))
    return Features(
        task,
        confidence,
        declared is not None,
        complexity,
        hints.complexity is not None,
        prompt.chars,
        prompt_tokens(prompt),
        max_prompt_tokens(prompt),
        _output_tokens(prompt, task, complexity),
        prompt.turns,
        sighting.code,
        sighting.maths,
        sighting.language(),
        hints.max_latency_ms or DEFAULT_LATENCY_MS,
        hints.max_latency_ms is not None,
        True if hints.cost_sensitive is None else hints.cost_sensitive,
    )


def difficulty_figures(prompt: Prompt) -> tuple[float, ...]:
    """Return what the estimate of complexity reads of a request; see `complexity.FIGURES`."""
    return _Sighting(looked_at(prompt)).figures(prompt)


def unread(prompt: Prompt) -> Features:
    """Return features without looking at the text: for a request that names its model."""
    return Features(
        "general",
        0.0,
        False,
        0.5,
        False,
        prompt.chars,
        prompt_tokens(prompt),
        max_prompt_tokens(prompt),
        _output_tokens(prompt, "general", 0.5),
        prompt.turns,
        0.0,
        0.0,
        "",
        DEFAULT_LATENCY_MS,
        False,
        True,
    )


def prompt_tokens(prompt: Prompt) -> int:
    """Return the expected prompt tokens: a token per four characters, more for wide scripts."""
    chars = prompt.chars
    wide = prompt.utf8_bytes - chars
    tokens = (chars * 5 + (wide * 6 if wide > 0 else 0)) // 20 + 4 * prompt.turns + 3
    if prompt.tools:
        tokens += TOOL_TOKENS * prompt.tools
    if prompt.images or prompt.files or prompt.audio:
        tokens += (
            IMAGE_TOKENS * prompt.images + FILE_TOKENS * prompt.files + AUDIO_TOKENS * prompt.audio
        )
    return tokens


def max_prompt_tokens(prompt: Prompt) -> int:
    """Return an upper bound of the prompt tokens: no tokenizer makes more tokens than bytes.

    Attachments are not text; their bounds are allowances, and so is what a provider adds for tools.
    """
    chars, size = prompt.chars, prompt.utf8_bytes
    bound = max(chars, size, prompt.body_bytes) + MESSAGE_BOUND * (prompt.turns + 2)
    if prompt.tools or prompt.schema:
        bound += TOOLING_BOUND
    if prompt.images or prompt.files or prompt.audio:
        bound += (
            IMAGE_BOUND * prompt.images + FILE_BOUND * prompt.files + AUDIO_BOUND * prompt.audio
        )
    # Tool descriptions are expected by number, which a count of bytes without them would not cover.
    if prompt.tools > TOOLING_BOUND // TOOL_TOKENS:
        bound += TOOL_TOKENS * prompt.tools
    return bound


def _output_tokens(prompt: Prompt, task: TaskType, complexity: float) -> int:
    """Return the expected tokens of one choice."""
    expected = int(_EXPECTED_OUTPUT[task] * (0.5 + complexity))
    if prompt.reasoning:
        expected *= 3
    limit = prompt.max_tokens
    return expected if limit is None or expected < limit else limit


class _Sighting:
    """One glance at the text, from which every estimate is drawn."""

    __slots__ = ("_cues", "_languages", "_scores", "_script", "_text", "code", "maths")

    def __init__(self, text: str) -> None:
        self._text = text
        scores = [0.0, 0.0, 0.0, 0.0]
        easier = harder = 0.0
        demanding = 0
        languages: dict[str, int] = {}
        # `translate` is fast on ASCII only; elsewhere the commonest marks must do.
        plain = text.isascii()
        flat = text.translate(_TO_SPACES) if plain else _flatten(text)
        for word in WORDS.intersection(flat.split()):
            task, weight, hardness, language = VOCABULARY[word]
            scores[task] += weight
            if hardness < 0.0:
                easier -= hardness
            else:
                harder += hardness
                demanding += hardness >= DEMANDING
            if language:
                languages[language] = languages.get(language, 0) + 1
        marks = 0
        for rare, mark in CODE_MARKS:
            if rare in text and mark in text:
                marks += 1
        self.code = 1.0 if marks >= 4 else marks / 4
        self.maths = 0.0
        if not plain or "\\" in text or "^" in text or "$$" in text or "x =" in text:
            self.maths = min(1.0, sum([mark in text for mark in MATHS_MARKS]) / 2)
        self._script = "" if plain else _by_script(text)
        if self._script in DENSE:
            for mark, task, weight, hardness in CJK_MARKS:
                if mark in text:
                    scores[task] += weight
                    harder += hardness
                    demanding += hardness >= DEMANDING
        scores[CODING] += 0.9 * marks
        scores[ANALYSIS] += 2.0 * self.maths
        self._scores = scores
        self._cues = easier, harder, demanding
        self._languages = languages

    def task(self) -> tuple[TaskType, float]:
        """Return the likeliest task type and its margin over the next, 0 to 1."""
        best, second, index = _GENERAL_PRIOR, 0.0, NOTHING
        for task in (CREATIVE, ANALYSIS, CODING):
            score = self._scores[task]
            if score > best:
                best, second, index = score, best, task
            elif score > second:
                second = score
        margin = (best - second) / (best + second)
        # Nothing seen is weak evidence for a general request.
        return TASK_TYPES[index], round(margin / 2 if index == NOTHING else margin, 3)

    def figures(self, prompt: Prompt) -> tuple[float, ...]:
        """Return what the estimate of complexity reads; see `complexity.FIGURES`."""
        return figures(prompt, self._text, Cues(*self._cues, self.code, self.maths))

    def language(self) -> str:
        """Return an ISO 639-1 guess: by script where that tells, else by stopwords."""
        if self._script:
            return self._script
        if not self._languages:
            return "en"
        best = max(self._languages, key=lambda code: (self._languages[code], code))
        return best if self._languages[best] >= 2 else "en"


def _flatten(text: str) -> str:
    for mark in (".", ",", "?", "!", ":", "¿", "¡", "(", ")", "'", "’"):
        if mark in text:
            text = text.replace(mark, " ")
    return text


_SCRIPTS = (
    (0x0400, 0x04FF, "ru"),
    (0x0590, 0x05FF, "he"),
    (0x0600, 0x06FF, "ar"),
    (0x0900, 0x097F, "hi"),
    (0x3040, 0x30FF, "ja"),
    (0x4E00, 0x9FFF, "zh"),
    (0xAC00, 0xD7AF, "ko"),
)


def _by_script(text: str) -> str:
    found = ""
    for char in text[:SCRIPT_CHARS]:
        if char > "\u03ff":
            code = ord(char)
            for low, high, language in _SCRIPTS:
                if low <= code <= high:
                    found = language
                    break
            # Kana decides for Japanese, which writes most of its nouns with Chinese characters.
            if found == "ja":
                return found
    return found
