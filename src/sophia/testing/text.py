"""The template text of the sandbox: deterministic, fit to look at, honest about itself."""

import hashlib
import random
import re

NOTICE = "This is Sophia's sandbox: no real model was called."
OPENINGS = (
    "You asked about {topic}.",
    "Here is a short answer about {topic}.",
    "On {topic}, in brief:",
)
ADVICE = (
    "Start with the goal: say what a good result for {topic} is, and how you would notice it.",
    "Split {topic} into parts that can be checked one by one, the riskiest first.",
    "Write down what you already know about {topic} and which assumption would hurt most if wrong.",
    "Try the smallest version that works, measure it, and only then improve it.",
    "Compare two or three ways to do it by cost, time and how easily they can be undone.",
    "Keep a note of each decision and its reason, so that the next person need not guess.",
    "Ask somebody who has done it before; one question saves a day.",
    "Decide beforehand when to stop: a deadline, a budget, or a measure that is good enough.",
)
CLOSINGS = (
    "Connect a real model to get a real answer.",
    "With an OpenRouter key the same request goes to {model}.",
    "Tell me more about {topic} and I will answer at the same length again.",
)
CODE = '''```python
def answer() -> str:
    """Return what was asked for: {topic}."""
    return "{word}"
```'''
CODE_WORDS = re.compile(
    r"\b(code|function|python|javascript|rust|sql|bug|class|script|regex)\b", re.IGNORECASE
)
PIECE = re.compile(r"\s*\S{1,6}|\s+")
TOPIC_WORDS = 12


def template_text(model: str, prompt: str, turn: int = 0) -> str:
    """Return the answer to `prompt` by `model`; the same three arguments give the same text."""
    digest = hashlib.sha256(f"{model}\0{prompt}\0{turn}".encode()).digest()
    pick = random.Random(digest)
    topic = topic_of(prompt)
    lines = [pick.choice(OPENINGS).format(topic=topic)]
    if CODE_WORDS.search(prompt):
        word = re.sub(r"\W+", " ", topic).split()
        lines.append(CODE.format(topic=topic, word=word[-1] if word else "sandbox"))
    advice = pick.sample(ADVICE, 3)
    lines.append("\n".join(f"{n}. {line.format(topic=topic)}" for n, line in enumerate(advice, 1)))
    lines.append(pick.choice(CLOSINGS).format(topic=topic, model=model))
    return f"{NOTICE} " + "\n\n".join(lines)


def thought_text(prompt: str) -> str:
    """Return what a reasoning model thinks before it answers `prompt`."""
    topic = topic_of(prompt)
    return (
        f"The question is about {topic}. I should find out what is wanted, recall what matters, "
        "weigh two ways to answer, and prefer the one that is short and can be checked."
    )


def topic_of(prompt: str) -> str:
    """Return the first words of `prompt`, quoted, as something that can be spoken about."""
    words = prompt.replace("`", "'").replace("{", "(").replace("}", ")").split()
    if not words:
        return "nothing in particular"
    more = "…" if len(words) > TOPIC_WORDS else ""
    return "“" + " ".join(words[:TOPIC_WORDS])[:120].rstrip("?.!,;:") + more + "”"


def pieces(text: str) -> tuple[str, ...]:
    """Cut `text` into pieces that join to the same text and count as the sandbox's tokens."""
    return tuple(PIECE.findall(text))
