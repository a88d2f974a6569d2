"""The sandbox's template text: deterministic, readable, and marked as coming from no real model."""

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
TOKEN = re.compile(r"\s*\S{1,6}|\s+")
# Words with a capital that do not begin a sentence.
NAME = re.compile(r"(?<=[\w,:] )[A-Z][\w'-]+(?: [A-Z][\w'-]+)*")
TOPIC_WORDS = 12


def build_template_text(model: str, prompt: str, choice: int = 0) -> str:
    """Return answer number `choice` of `model`; the same arguments give the same text."""
    digest = hashlib.sha256(f"{model}\0{prompt}\0{choice}".encode()).digest()
    source = random.Random(digest)
    topic = extract_topic(prompt)
    lines = [source.choice(OPENINGS).format(topic=topic)]
    if CODE_WORDS.search(prompt):
        words = re.sub(r"\W+", " ", topic).split()
        lines.append(CODE.format(topic=topic, word=words[-1] if words else "sandbox"))
    advice = source.sample(ADVICE, 3)
    lines.append("\n".join(f"{n}. {line.format(topic=topic)}" for n, line in enumerate(advice, 1)))
    lines.append(source.choice(CLOSINGS).format(topic=topic, model=model))
    return f"{NOTICE} " + "\n\n".join(lines)


def build_reasoning_text(prompt: str) -> str:
    """Return the reasoning that comes before the answer to `prompt`."""
    return (
        f"The question is about {extract_topic(prompt)}. I should find out what is wanted, recall "
        "what matters, weigh two ways to answer, and prefer the one that is short and can be "
        "checked."
    )


def extract_topic(prompt: str) -> str:
    """Return the first words of `prompt` in quotation marks, to stand in a sentence."""
    words = prompt.replace("`", "'").replace("{", "(").replace("}", ")").split()
    if not words:
        return "nothing in particular"
    more = "…" if len(words) > TOPIC_WORDS else ""
    return "“" + " ".join(words[:TOPIC_WORDS])[:120].rstrip("?.!,;:") + more + "”"


def extract_name(prompt: str) -> str:
    """Return the last proper noun in `prompt`, a likely argument of a tool, or its topic."""
    names = NAME.findall(prompt)
    return names[-1] if names else extract_topic(prompt)


def split_tokens(text: str) -> tuple[str, ...]:
    """Cut `text` into the sandbox's tokens, which join to the same text."""
    return tuple(TOKEN.findall(text))
