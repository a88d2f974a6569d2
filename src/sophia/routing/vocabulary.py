"""The words and marks from which a task type is guessed: constants to read and extend."""

from typing import NamedTuple

CODING, ANALYSIS, CREATIVE, NOTHING = 0, 1, 2, 3


DEMANDING = 0.12
"""Hardness from which on a word by itself asks for demanding work."""


class Cue(NamedTuple):
    """What a word says: for which task, how strongly, and how much harder it makes the work."""

    task: int = NOTHING
    weight: float = 0.0
    hardness: float = 0.0
    language: str = ""


def _cues(
    task: int, weight: float, hardness: float, words: str, language: str = ""
) -> dict[str, Cue]:
    return {word: Cue(task, weight, hardness, language) for word in words.split()}


VOCABULARY: dict[str, Cue] = {
    **_cues(NOTHING, 0, 0, "der die das und ist nicht ein eine wie für mit ich wir dem den", "de"),
    **_cues(NOTHING, 0, 0, "le les des est une dans pour et du qui avec je nous quelle quel", "fr"),
    **_cues(NOTHING, 0, 0, "el los las una que para por con del y cuál cómo es un", "es"),
    **_cues(
        NOTHING, 0, -0.12, "hi hello hey thanks hallo danke bonjour merci hola gracias capital"
    ),
    **_cues(NOTHING, 0, -0.06, "translate define spell quick short briefly simple synonym recipe"),
    **_cues(
        NOTHING, 0, 0.08, "careful carefully rigorous detailed thorough thoroughly comprehensive"
    ),
    **_cues(
        NOTHING, 0, 0.08, "constraints requirements edge cases assumptions invariant production"
    ),
    **_cues(
        CODING, 2.0, 0.02, "python javascript typescript java golang kotlin swift haskell perl php"
    ),
    **_cues(
        CODING, 2.0, 0.02, "sql regex html css bash powershell react django flask fastapi numpy"
    ),
    **_cues(
        CODING, 2.0, 0.04, "docker kubernetes terraform git github pytest dockerfile makefile css3"
    ),
    **_cues(
        CODING, 2.0, 0.06, "c++ c# rust pandas postgres postgresql sqlite redis webpack npm node.js"
    ),
    **_cues(
        CODING, 2.0, 0.08, "segfault nullpointerexception typeerror keyerror valueerror deadlock"
    ),
    **_cues(
        CODING, 2.0, 0.06, "stacktrace traceback refactor debug compile compiler decorator mutex"
    ),
    **_cues(
        CODING, 1.2, 0.03, "code function bug script program algorithm array api endpoint exception"
    ),
    **_cues(
        CODING,
        1.2,
        0.03,
        "class method loop json yaml variable query database unittest unit snippet",
    ),
    **_cues(
        CODING, 1.6, 0.03, "def import #include elif const null stderr stdin println async await"
    ),
    **_cues(
        CODING, 0.8, 0.12, "concurrent concurrency thread-safe distributed lock-free asynchronous"
    ),
    **_cues(CODING, 0.8, 0.10, "recursion recursive cache backend microservice scalable parser"),
    **_cues(
        CODING, 0.8, 0.02, "implement terminal command linux server return error crashes repository"
    ),
    **_cues(
        CODING, 1.6, 0.02, "programmiere quelltext skript datenbank klasse fehlermeldung", "de"
    ),
    **_cues(CODING, 1.6, 0.02, "fonction programme requête algorithme classe bogue", "fr"),
    **_cues(CODING, 1.6, 0.02, "función programa código algoritmo clase depurar consulta", "es"),
    **_cues(CODING, 1.2, 0.02, "funktion fehler code", ""),
    **_cues(
        ANALYSIS, 2.0, 0.08, "analyse analyze analysis evaluate assess critique interpret contrast"
    ),
    **_cues(
        ANALYSIS, 2.0, 0.05, "compare comparison summarise summarize summary implications pros cons"
    ),
    **_cues(
        ANALYSIS, 2.0, 0.14, "prove proof theorem derive lemma eigenvalues contradiction induction"
    ),
    **_cues(
        ANALYSIS, 2.0, 0.08, "equation integral derivative probability polynomial matrix calculus"
    ),
    **_cues(
        ANALYSIS,
        1.4,
        0.05,
        "why trade-offs tradeoffs trade-off causes hypothesis evidence argument",
    ),
    **_cues(
        ANALYSIS,
        1.4,
        0.05,
        "statistics correlation regression variance median trend trends dataset",
    ),
    **_cues(
        ANALYSIS, 1.4, 0.04, "solve calculate compute estimate percentage how-many reason deduce"
    ),
    **_cues(
        ANALYSIS, 1.2, 0.05, "strategy risks market quarterly revenue forecast report findings data"
    ),
    **_cues(
        ANALYSIS, 1.2, 0.06, "difference differences advantages disadvantages impact effects study"
    ),
    **_cues(
        ANALYSIS, 0.8, 0.04, "explain reasoning logic step-by-step examine identify review factors"
    ),
    **_cues(
        ANALYSIS,
        2.0,
        0.05,
        "analysiere vergleiche bewerte warum zusammenfassung fasse",
        "de",
    ),
    **_cues(
        ANALYSIS,
        2.0,
        0.05,
        "analysez comparez compare pourquoi résume résumez évalue",
        "fr",
    ),
    **_cues(ANALYSIS, 2.0, 0.05, "analiza compara resume evalúa resumen ventajas", "es"),
    **_cues(ANALYSIS, 2.0, 0.14, "beweise beweis beweisen widerspruch induktion", "de"),
    **_cues(ANALYSIS, 2.0, 0.14, "démontre démontrez démontrer preuve récurrence", "fr"),
    **_cues(ANALYSIS, 2.0, 0.14, "demuestra demuestre demostrar inducción teorema", "es"),
    **_cues(ANALYSIS, 2.0, 0.14, "докажи докажите доказать доказательство теорему"),
    **_cues(NOTHING, 0, -0.12, "привет спасибо ciao grazie"),
    **_cues(
        NOTHING, 0, 0.08, "rigorously rigorosamente rigurosamente rigoureusement sorgfältig строго"
    ),
    **_cues(
        CREATIVE, 2.6, 0.02, "poem haiku sonnet limerick lyrics song story stories novel screenplay"
    ),
    **_cues(
        CREATIVE, 2.6, 0.02, "tale fairytale ballad verse rhyme rhyming slogan tagline taglines rap"
    ),
    **_cues(
        CREATIVE, 1.6, 0.02, "character protagonist plot fantasy sci-fi fiction villain monologue"
    ),
    **_cues(
        CREATIVE, 1.6, 0.00, "imagine brainstorm creative invent joke jokes riddle names nickname"
    ),
    **_cues(
        CREATIVE, 1.2, 0.02, "dialogue scene chapter metaphor catchy whimsical toast parody dragon"
    ),
    **_cues(CREATIVE, 0.5, 0.00, "write compose narrate tell style voice short about"),
    **_cues(
        CREATIVE, 2.6, 0.02, "gedicht geschichte märchen liedtext erfinde reim kurzgeschichte", "de"
    ),
    **_cues(CREATIVE, 2.6, 0.02, "poème conte chanson invente raconte nouvelle slogan", "fr"),
    **_cues(CREATIVE, 2.6, 0.02, "poema cuento canción inventa verso rima microrrelato", "es"),
}
WORDS = frozenset(VOCABULARY)

# Marks that only code has, by a character that prose hardly uses: looking for one character is
# twenty times cheaper than looking for a word.
CODE_MARKS = (
    ("`", "```"),
    ("(", "();"),
    ("(", "print("),
    ("{", "() {"),
    ("{", "{\n"),
    ("=", " = "),
    (">", "=> "),
    ("<", "</"),
    ("_", "_"),
    (";", ";\n"),
)
MATHS_MARKS = ("\\frac", "\\int", "x^2", "x =", "$$", "√", "∑", "∫")
# Scripts without spaces, where words can only be found by looking for each: mark, task, weight, and
# how much harder it makes the work.
DENSE = frozenset({"zh", "ja"})
CJK_MARKS: tuple[tuple[str, int, float, float], ...] = (
    ("代码", CODING, 2.0, 0.02), ("函数", CODING, 2.0, 0.02), ("编程", CODING, 2.0, 0.02), ("报错", CODING, 2.0, 0.02),
    ("コード", CODING, 2.0, 0.02), ("関数", CODING, 2.0, 0.02), ("脚本", CODING, 2.0, 0.02),
    ("分析", ANALYSIS, 2.0, 0.05), ("比较", ANALYSIS, 2.0, 0.05), ("总结", ANALYSIS, 2.0, 0.05), ("为什么", ANALYSIS, 2.0, 0.05),
    ("证明", ANALYSIS, 2.4, 0.14), ("証明", ANALYSIS, 2.4, 0.14), ("推导", ANALYSIS, 2.0, 0.14),
    ("比較", ANALYSIS, 2.0, 0.05), ("要約", ANALYSIS, 2.0, 0.05),
    ("诗", CREATIVE, 2.4, 0.02), ("故事", CREATIVE, 2.4, 0.02), ("小说", CREATIVE, 2.4, 0.02), ("歌词", CREATIVE, 2.4, 0.02),
    ("物語", CREATIVE, 2.4, 0.02), ("俳句", CREATIVE, 2.4, 0.02),
)  # fmt: skip
