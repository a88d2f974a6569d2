"""Texts that are no request at all, made up at random: the task model learns to say `unknown`."""

import base64
import string

import numpy as np

_SYLLABLES = ("ka", "mo", "ri", "tun", "zel", "ub", "xo", "fra", "lim", "pe", "vash", "dro", "wi")
_LOG_LEVELS = ("INFO", "WARN", "DEBUG", "ERROR", "TRACE")
_SYMBOLS = "!@#$%^&*()_+-=[]{};:'\",.<>/?\\|`~§°…"
_SCRIPTS = ((0x10D0, 33), (0x0E01, 46), (0x05D0, 27), (0x1200, 80), (0x0531, 38), (0xAC00, 900))


def make_far_texts(count: int, words: list[str], seed: int = 0) -> list[str]:
    """Return `count` texts: noise, codes, lists, fragments of logs, scripts without a meaning.

    `words` are English words, which random lists are made of.
    """
    rng = np.random.default_rng(seed)
    makers = (
        _noise,
        _encoded,
        _hex_dump,
        _invented_language,
        _symbols,
        _numbers,
        _repeated,
        _log_lines,
        _foreign_script,
        _pseudo_drawing,
    )
    texts = []
    for number in range(count):
        if number % (len(makers) + 2) < len(makers):
            texts.append(makers[number % (len(makers) + 2)](rng))
        else:
            texts.append(" ".join(rng.choice(words, int(rng.integers(2, 40)))))
    return texts


def _letters(rng: np.random.Generator, alphabet: str, low: int, high: int) -> str:
    return "".join(rng.choice(list(alphabet), int(rng.integers(low, high))))


def _noise(rng: np.random.Generator) -> str:
    alphabet = ("asdfjklö", "qwertzuiop", string.ascii_lowercase, string.printable[:94])
    words = int(rng.integers(1, 12))
    return " ".join(_letters(rng, alphabet[int(rng.integers(4))], 1, 14) for _ in range(words))


def _encoded(rng: np.random.Generator) -> str:
    return base64.b64encode(rng.bytes(int(rng.integers(8, 300)))).decode()


def _hex_dump(rng: np.random.Generator) -> str:
    rows = [rng.bytes(16).hex(" ") for _ in range(int(rng.integers(1, 12)))]
    return "\n".join(f"{at * 16:08x}  {row}" for at, row in enumerate(rows))


def _invented_language(rng: np.random.Generator) -> str:
    words = ["".join(rng.choice(_SYLLABLES, int(rng.integers(1, 4)))) for _ in range(30)]
    return " ".join(words[: int(rng.integers(3, 30))])


def _symbols(rng: np.random.Generator) -> str:
    return _letters(rng, _SYMBOLS, 1, 40)


def _numbers(rng: np.random.Generator) -> str:
    separator = (" ", ", ", "\n", ";")[int(rng.integers(4))]
    scale = 10 ** int(rng.integers(1, 8))
    return separator.join(str(one) for one in rng.integers(0, scale, int(rng.integers(1, 50))))


def _repeated(rng: np.random.Generator) -> str:
    unit = _letters(rng, string.ascii_lowercase + _SYMBOLS + string.digits, 1, 4)
    return unit * int(rng.integers(5, 60))


def _log_lines(rng: np.random.Generator) -> str:
    lines = []
    for _ in range(int(rng.integers(1, 10))):
        clock = f"{rng.integers(24):02d}:{rng.integers(60):02d}:{rng.integers(60):02d}"
        name = "".join(rng.choice(_SYLLABLES, 2))
        level = _LOG_LEVELS[int(rng.integers(len(_LOG_LEVELS)))]
        lines.append(f"2026-0{rng.integers(1, 9)}-1{rng.integers(9)} {clock} {level} [{name}] ok")
    return "\n".join(lines)


def _foreign_script(rng: np.random.Generator) -> str:
    start, size = _SCRIPTS[int(rng.integers(len(_SCRIPTS)))]
    words = [
        "".join(chr(start + int(one)) for one in rng.integers(0, size, int(rng.integers(2, 9))))
        for _ in range(int(rng.integers(2, 20)))
    ]
    return " ".join(words)


def _pseudo_drawing(rng: np.random.Generator) -> str:
    rows = [_letters(rng, " /\\|_-*#.oO", 8, 30) for _ in range(int(rng.integers(3, 9)))]
    return "\n".join(rows)
