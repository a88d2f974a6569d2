"""The words and marks from which a task type is guessed: tables to read and extend."""

from typing import NamedTuple

from sophia.routing.types import TASK_TYPES

CODING, ANALYSIS, CREATIVE, GENERAL = range(4)

DEMANDING_HARDNESS = 0.12
"""Hardness from which on a word by itself asks for demanding work."""


class WordCue(NamedTuple):
    """Evidence of a word: its task, the weight, and how much harder it makes the work."""

    task: int
    weight: float
    hardness: float


def _read_cues(table: str) -> dict[str, WordCue]:
    """Return the cues by word. A row has task, weight, hardness, and words."""
    cues = {}
    for row in table.strip().splitlines():
        task, weight, hardness, *words = row.split()
        cue = WordCue(TASK_TYPES.index(task), float(weight), float(hardness))
        cues.update(dict.fromkeys(words, cue))
    return cues


VOCABULARY = _read_cues("""
general   0.0 -0.12  hi hello hey thanks hallo danke bonjour merci hola gracias capital привет
general   0.0 -0.12  спасибо ciao grazie
general   0.0 -0.06  translate define spell quick short briefly simple synonym recipe
general   0.0  0.08  careful carefully rigorous detailed thorough thoroughly comprehensive
general   0.0  0.08  constraints requirements edge cases assumptions invariant production
general   0.0  0.08  rigorously rigorosamente rigurosamente rigoureusement sorgfältig строго
coding    2.0  0.02  python javascript typescript java golang kotlin swift haskell perl php sql
coding    2.0  0.02  regex html css bash powershell react django flask fastapi numpy
coding    2.0  0.04  docker kubernetes terraform git github pytest dockerfile makefile css3
coding    2.0  0.06  c++ c# rust pandas postgres postgresql sqlite redis webpack npm node.js
coding    2.0  0.06  stacktrace traceback refactor debug compile compiler decorator mutex
coding    2.0  0.08  segfault nullpointerexception typeerror keyerror valueerror deadlock
coding    1.2  0.03  code function bug script program algorithm array api endpoint exception
coding    1.2  0.03  class method loop json yaml variable query database unittest unit snippet
coding    1.6  0.03  def import #include elif const null stderr stdin println async await
coding    0.8  0.12  concurrent concurrency thread-safe distributed lock-free asynchronous
coding    0.8  0.10  recursion recursive cache backend microservice scalable parser
coding    0.8  0.02  implement terminal command linux server return error crashes repository
coding    1.6  0.02  programmiere quelltext skript datenbank klasse fehlermeldung
coding    1.6  0.02  fonction programme requête algorithme classe bogue
coding    1.6  0.02  función programa código algoritmo clase depurar consulta
coding    1.2  0.02  funktion fehler code
analysis  2.0  0.08  analyse analyze analysis evaluate assess critique interpret contrast
analysis  2.0  0.08  equation integral derivative probability polynomial matrix calculus
analysis  2.0  0.05  compare comparison summarise summarize summary implications pros cons
analysis  2.0  0.14  prove proof theorem derive lemma eigenvalues contradiction induction
analysis  2.0  0.14  докажи докажите доказать доказательство теорему
analysis  1.4  0.05  why trade-offs tradeoffs trade-off causes hypothesis evidence argument
analysis  1.4  0.05  statistics correlation regression variance median trend trends dataset
analysis  1.4  0.04  solve calculate compute estimate percentage how-many reason deduce
analysis  1.2  0.05  strategy risks market quarterly revenue forecast report findings data
analysis  1.2  0.06  difference differences advantages disadvantages impact effects study
analysis  0.8  0.04  explain reasoning logic step-by-step examine identify review factors
analysis  2.0  0.05  analysiere vergleiche bewerte warum zusammenfassung fasse
analysis  2.0  0.05  analysez comparez compare pourquoi résume résumez évalue
analysis  2.0  0.05  analiza compara resume evalúa resumen ventajas
analysis  2.0  0.14  beweise beweis beweisen widerspruch induktion
analysis  2.0  0.14  démontre démontrez démontrer preuve récurrence
analysis  2.0  0.14  demuestra demuestre demostrar inducción teorema
creative  2.6  0.02  poem haiku sonnet limerick lyrics song story stories novel screenplay tale
creative  2.6  0.02  fairytale ballad verse rhyme rhyming slogan tagline taglines rap
creative  1.6  0.02  character protagonist plot fantasy sci-fi fiction villain monologue
creative  1.6  0.00  imagine brainstorm creative invent joke jokes riddle names nickname
creative  1.2  0.02  dialogue scene chapter metaphor catchy whimsical toast parody dragon
creative  0.5  0.00  write compose narrate tell style voice short about
creative  2.6  0.02  gedicht geschichte märchen liedtext erfinde reim kurzgeschichte
creative  2.6  0.02  poème conte chanson invente raconte nouvelle slogan
creative  2.6  0.02  poema cuento canción inventa verso rima microrrelato
""")
VOCABULARY_WORDS = frozenset(VOCABULARY)

# Marks that only code has, by a character that prose hardly uses: looking for one character is
# twenty times cheaper than looking for a word.
CODE_MARKERS = (
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
MATHS_MARKERS = ("\\frac", "\\int", "x^2", "x =", "$$", "√", "∑", "∫")
# Scripts without spaces, where words can only be found by looking for each.
CJK_MARKERS = _read_cues("""
coding    2.0  0.02  代码 函数 编程 报错 コード 関数 脚本
analysis  2.0  0.05  分析 比较 总结 为什么
analysis  2.4  0.14  证明 証明
analysis  2.0  0.14  推导
analysis  2.0  0.05  比較 要約
creative  2.4  0.02  诗 故事 小说 歌词 物語 俳句
""")
