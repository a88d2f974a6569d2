"""Features of a request: counts, and cues from a capped excerpt of its text."""

import re
import unicodedata

import pycld2

from sophia.routing.features.complexity import ComplexityCues, estimate_complexity
from sophia.routing.features.vocabulary import (
    ANALYSIS,
    CJK_MARKERS,
    CODE_MARKERS,
    CODING,
    CREATIVE,
    DEMANDING_HARDNESS,
    GENERAL,
    MATHS_MARKERS,
    VOCABULARY,
    VOCABULARY_WORDS,
)
from sophia.routing.types import DEFAULT_LATENCY_MS, TASK_TYPES, Features, Hints, Prompt, TaskType

HEAD_CHARS = 440
TAIL_CHARS = 200
# Wide strings are several times slower to search, and wide scripts say more in fewer characters.
WIDE_HEAD_CHARS, WIDE_TAIL_CHARS = 240, 100
SYSTEM_CHARS = 120
MAX_EXCERPT_CHARS = HEAD_CHARS + TAIL_CHARS + SYSTEM_CHARS + 2

IMAGE_TOKENS, MAX_IMAGE_TOKENS = 1000, 6000
FILE_TOKENS, MAX_FILE_TOKENS = 3000, 30000
AUDIO_TOKENS, MAX_AUDIO_TOKENS = 500, 10000
TOOL_TOKENS, MAX_TOOL_OVERHEAD_TOKENS = 90, 1000
MAX_MESSAGE_OVERHEAD_TOKENS = 8

_UNSPACED = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff]")
_GENERAL_PRIOR = 1.0
_EXPECTED_OUTPUT_TOKENS: dict[TaskType, int] = {
    "coding": 700,
    "analysis": 600,
    "creative": 700,
    "general": 300,
}
_PUNCTUATION_TO_SPACES = str.maketrans(dict.fromkeys(".,;:?!()[]{}\"'`/\\|<>*=\n\t", " "))


def build_excerpt(prompt: Prompt) -> str:
    """Return the lower-cased text that features are read from, at most `MAX_EXCERPT_CHARS` long.

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


def extract_features(prompt: Prompt, hints: Hints) -> Features:
    """Return the features of a request: declared ones as given, the rest estimated.

    An undeclared task type is the one that the vocabulary suggests, an input of the task model;
    `classify.TaskClassifier` replaces it by the task model's own.
    """
    text = build_excerpt(prompt)
    scan = TextScan(text)
    task, confidence = scan.suggest_task()
    if hints.task_type is not None:
        task, confidence = hints.task_type, 1.0
    complexity = hints.complexity
    if complexity is None:
        complexity = estimate_complexity(prompt, text, scan.cues)
    return Features(
        task_type=task,
        task_confidence=confidence,
        task_declared=hints.task_type is not None,
        complexity=complexity,
        complexity_declared=hints.complexity is not None,
        chars=prompt.chars,
        prompt_tokens=estimate_prompt_tokens(prompt),
        max_prompt_tokens=bound_prompt_tokens(prompt),
        output_tokens=estimate_output_tokens(prompt, task, complexity),
        turns=prompt.turns,
        code=scan.cues.code,
        maths=scan.cues.maths,
        language=scan.detect_language(),
        max_latency_ms=hints.max_latency_ms or DEFAULT_LATENCY_MS,
        latency_declared=hints.max_latency_ms is not None,
        cost_sensitive=True if hints.cost_sensitive is None else hints.cost_sensitive,
    )


def build_default_features(prompt: Prompt) -> Features:
    """Return features without reading the text, for a request that names its model."""
    return Features(
        chars=prompt.chars,
        prompt_tokens=estimate_prompt_tokens(prompt),
        max_prompt_tokens=bound_prompt_tokens(prompt),
        output_tokens=estimate_output_tokens(prompt, "general", 0.5),
        turns=prompt.turns,
    )


def estimate_prompt_tokens(prompt: Prompt) -> int:
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


def bound_prompt_tokens(prompt: Prompt) -> int:
    """Return an upper bound of the prompt tokens: no tokenizer makes more tokens than bytes.

    Attachments are not text; their bounds are allowances, and so is what a provider adds for tools.
    """
    chars, size = prompt.chars, prompt.utf8_bytes
    bound = max(chars, size, prompt.body_bytes) + MAX_MESSAGE_OVERHEAD_TOKENS * (prompt.turns + 2)
    if prompt.tools or prompt.schema:
        bound += MAX_TOOL_OVERHEAD_TOKENS
    if prompt.images or prompt.files or prompt.audio:
        bound += (
            MAX_IMAGE_TOKENS * prompt.images
            + MAX_FILE_TOKENS * prompt.files
            + MAX_AUDIO_TOKENS * prompt.audio
        )
    # Tool descriptions are expected by number, which a count of bytes without them would not cover.
    if prompt.tools > MAX_TOOL_OVERHEAD_TOKENS // TOOL_TOKENS:
        bound += TOOL_TOKENS * prompt.tools
    return bound


def estimate_output_tokens(prompt: Prompt, task: TaskType, complexity: float) -> int:
    """Return the expected tokens of one choice."""
    expected = int(_EXPECTED_OUTPUT_TOKENS[task] * (0.5 + complexity))
    if prompt.reasoning:
        expected *= 3
    limit = prompt.max_tokens
    return expected if limit is None or expected < limit else limit


class TextScan:
    """One pass over an excerpt, from which every estimate follows."""

    __slots__ = ("_scores", "_text", "cues")

    def __init__(self, text: str) -> None:
        scores = [0.0, 0.0, 0.0, 0.0]
        easier = harder = 0.0
        demanding = 0
        # `translate` is fast on ASCII only; elsewhere the commonest marks must do.
        plain = text.isascii()
        flat = text.translate(_PUNCTUATION_TO_SPACES) if plain else _replace_punctuation(text)
        for word in VOCABULARY_WORDS.intersection(flat.split()):
            task, weight, hardness = VOCABULARY[word]
            scores[task] += weight
            if hardness < 0.0:
                easier -= hardness
            else:
                harder += hardness
                demanding += hardness >= DEMANDING_HARDNESS
        marks = 0
        for rare, mark in CODE_MARKERS:
            if rare in text and mark in text:
                marks += 1
        code = 1.0 if marks >= 4 else marks / 4
        maths = 0.0
        if not plain or "\\" in text or "^" in text or "$$" in text or "x =" in text:
            maths = min(1.0, sum([mark in text for mark in MATHS_MARKERS]) / 2)
        self._text = text
        if not plain and _UNSPACED.search(text):
            for mark, (task, weight, hardness) in CJK_MARKERS.items():
                if mark in text:
                    scores[task] += weight
                    harder += hardness
                    demanding += hardness >= DEMANDING_HARDNESS
        scores[CODING] += 0.9 * marks
        scores[ANALYSIS] += 2.0 * maths
        self._scores = scores
        self.cues = ComplexityCues(easier, harder, demanding, code, maths)

    def suggest_task(self) -> tuple[TaskType, float]:
        """Return the task type suggested by the vocabulary, and its margin, 0 to 1."""
        best, second, index = _GENERAL_PRIOR, 0.0, GENERAL
        for task in (CREATIVE, ANALYSIS, CODING):
            score = self._scores[task]
            if score > best:
                best, second, index = score, best, task
            elif score > second:
                second = score
        margin = (best - second) / (best + second)
        # Nothing seen is weak evidence for a general request.
        return TASK_TYPES[index], round(margin / 2 if index == GENERAL else margin, 3)

    def detect_language(self) -> str:
        """Return an ISO 639-1 guess by Compact Language Detector 2; English where it has none."""
        try:
            reliable, _, found = pycld2.detect(self._text.encode("utf-8", "replace"))
        except pycld2.error:
            # Control characters, and halves of characters that an excerpt was cut in.
            return "en"
        code: str = found[0][1]
        if self._text.isascii():
            # Code and a few plain letters look like any language.
            return code if reliable and code != "un" else "en"
        return _guess_from_script(self._text) if code == "un" else code.partition("-")[0]


_SCRIPT_LANGUAGES = {
    "ARABIC": "ar",
    "CJK": "zh",
    "CYRILLIC": "ru",
    "DEVANAGARI": "hi",
    "HANGUL": "ko",
    "HEBREW": "he",
    "HIRAGANA": "ja",
    "KATAKANA": "ja",
}


def _guess_from_script(text: str) -> str:
    """Return the language of the first script that has one, for texts too short to detect."""
    scripts = (unicodedata.name(char, "").partition(" ")[0] for char in text if char > "\u02ff")
    return next((_SCRIPT_LANGUAGES[name] for name in scripts if name in _SCRIPT_LANGUAGES), "en")


def _replace_punctuation(text: str) -> str:
    for mark in (".", ",", "?", "!", ":", "¿", "¡", "(", ")", "'", "’"):
        if mark in text:
            text = text.replace(mark, " ")
    return text
