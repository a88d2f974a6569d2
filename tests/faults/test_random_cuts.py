"""Streams that break off at random bytes, where callers want another call to go on."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from random import Random
from typing import Any

import msgspec
import pytest
from cut_upstream import CUTS, Cut, CuttingUpstream, Script, serving

from gateway import SHORT, Answer, Gateway, Start
from sophia.config import BudgetSettings, DeadlineSettings, UpstreamModelSettings, UpstreamSettings

ONE, TWO = "own/one", "own/two"
PATIENT = msgspec.structs.replace(SHORT, content_s=1.5, stall_s=1.5, total_s=20.0, request_s=20.0)
"""A machine that is busy for a moment does not make a stream look stalled before it began."""
STREAMS, PER_GATEWAY, AT_A_TIME = 500, 50, 10
"""One process does not repeat more than a hundred calls at once, so that there are several."""

WORDS = {
    "English": "the sky scatters blue light more than red, so a clear day looks blue; it does. Why?",
    "German": "Der Himmel streut blaues Licht stärker als rotes, daher wirkt er größer und süß.",
    "Russian": "Небо рассеивает синий свет сильнее красного, поэтому днём оно голубое.",
    "Arabic": "السماء تشتت الضوء الأزرق أكثر من الأحمر لذلك تبدو زرقاء في النهار",
    "Hindi": "आकाश नीले प्रकाश को लाल से अधिक बिखेरता है इसलिए दिन में नीला दिखता है",
    "Thai": "ท้องฟ้า กระจาย แสง สีน้ำเงิน มากกว่า สีแดง จึง ดู เป็น สีฟ้า ใน เวลา กลางวัน",
    "Chinese": "天空 散射 蓝光 多于 红光 ， 所以 白天 看起来 是 蓝色 的 。 为什么 呢 ？",
    "Japanese": "空は 青い 光を 赤い 光より 強く 散乱 させる ので 昼間は 青く 見える 。 なぜ でしょうか",
    "Korean": "하늘은 파란 빛을 빨간 빛보다 더 많이 산란시키므로 낮에는 파랗게 보인다",
    "emoji": "😀 👩‍👩‍👧‍👦 🇩🇪 ❤️ 👍🏽 🏴‍☠️ é ñ ﷽ 𝒳 🧑‍💻 ok",
}
WITHOUT_SPACES = ("Chinese", "Japanese", "emoji")
LINES = """
def walk(node):
    return None
        total += 1
    }
\t\tassert a == b;
  </div>
| 0 | 0 | 0 |
|---|---|
print("“\\n”")
    for x in xs:
# ----------------------------
""".splitlines(keepends=True)
SPACES = (" ", "  ", "\n", "\n\n", "\t", "\u3000", "\u00a0", "\r\n", "x", "        ")


def write_text(source: Random) -> str:
    """Return a text in one of the languages, a mixture, code with repeated lines, or white space."""
    kind = source.choice([*WORDS, "mixture", "code", "code", "space"])
    count = source.randint(20, 120)
    match kind:
        case "code":
            lines = [source.choice(LINES) * source.choice((1, 1, 1, 2, 3, 8)) for _ in range(count)]
            return "".join(lines[: count // 3])
        case "space":
            return "".join(source.choices(SPACES, k=count)) + "."
        case "mixture":
            return " ".join(source.choices(" ".join(WORDS.values()).split(), k=count))
    return ("" if kind in WITHOUT_SPACES else " ").join(
        source.choices(WORDS[kind].split(), k=count)
    )


def write_cuts(source: Random) -> list[Cut]:
    """Return one cut, or for every fourth stream two."""
    return [Cut(source.choice(CUTS), source.random()) for _ in range(source.choice((1, 1, 1, 2)))]


@asynccontextmanager
async def playing(
    start: Start, scripts: Mapping[str, Script], deadlines: DeadlineSettings
) -> AsyncIterator[Gateway]:
    """Run a Sophia over an upstream that plays scripts by prompt."""
    async with serving(CuttingUpstream(dict(scripts))) as url:
        models = [UpstreamModelSettings(id=id, completion_usd_per_mtok=1.0) for id in (ONE, TWO)]
        place = UpstreamSettings(name="own", base_url=url, models=tuple(models))
        budget = BudgetSettings(daily_usd=1000.0)
        async with start(upstreams=(place,), deadlines=deadlines, budget=budget) as gateway:
            yield gateway


async def ask_all(
    start: Start, scripts: Mapping[str, Script], deadlines: DeadlineSettings = SHORT, **more: Any
) -> list[tuple[Script, Answer]]:
    """Return every script with the answer to its prompt."""
    found: list[tuple[Script, Answer]] = []
    room = asyncio.Semaphore(AT_A_TIME)

    async def ask(gateway: Gateway, prompt: str) -> None:
        hints = {"on_cut": "continue"}
        async with room:
            answer = await gateway.client.chat(
                ONE, text=prompt, models=[ONE, TWO], stream=True, sophia=hints, **more
            )
        found.append((scripts[prompt], answer))

    prompts = list(scripts)
    for at in range(0, len(prompts), PER_GATEWAY):
        async with playing(start, scripts, deadlines) as gateway:
            await asyncio.gather(*(ask(gateway, each) for each in prompts[at : at + PER_GATEWAY]))
    return found


def classify(script: Script, answer: Answer) -> str:
    """Return how a stream ended for a caller who knows the whole text."""
    assert answer.complete
    if answer.status != 200:
        return "error"
    last = answer.chunks[-1]
    if not answer.done:
        return "error" if "error" in last and script.text.startswith(answer.text) else "no end"
    if answer.text == script.text:
        return "exact"
    return "changed, marked" if "continued" in last["sophia"] else "changed, unmarked"


def is_continued(answer: Answer) -> bool:
    """Return whether the answer names a model that went on with it."""
    return b'"continued":[' in answer.body


@pytest.mark.parametrize("server", ["native"])
async def test_95_of_100_cut_streams_are_whole_to_the_byte(start: Start) -> None:
    """The others end with an error, or repeat words so often that the overlap is a guess."""
    source = Random(1)
    scripts = {
        f"Tell me {number}": Script(
            text=write_text(source), cuts=write_cuts(source), seed=source.getrandbits(32)
        )
        for number in range(STREAMS)
    }
    found = await ask_all(start, scripts)
    counts = Counter(classify(*each) for each in found)
    assert counts.total() == STREAMS
    assert counts["exact"] >= 0.95 * STREAMS, counts
    assert not counts["no end"] and not counts["changed, unmarked"], counts
    assert sum(is_continued(answer) for _, answer in found) >= 0.9 * STREAMS


@pytest.mark.parametrize("server", ["native"])
async def test_nothing_goes_on_after_a_gap(start: Start) -> None:
    """A text without the malformed part in it is not what the model has written."""
    source = Random(2)
    scripts = {
        f"Tell me {number}": Script(
            text="x" * 200,
            cuts=[Cut(CUTS[number % len(CUTS)], source.uniform(0.2, 0.9))],
            seed=source.getrandbits(32),
            gap=True,
        )
        for number in range(30)
    }
    for script, answer in await ask_all(start, scripts):
        assert not is_continued(answer)
        assert answer.text == script.text if answer.done else "error" in answer.chunks[-1]


@pytest.mark.parametrize("server", ["native"])
@pytest.mark.parametrize("declared", [True, False], ids=["tools", "no tools"])
async def test_nothing_goes_on_after_a_delta_of_a_tool_call(start: Start, declared: bool) -> None:
    """Whether or not the caller declared tools."""
    source = Random(3)
    scripts = {
        f"Tell me {number}": Script(
            text=write_text(source)[: source.randint(0, 60)],
            cuts=[Cut(source.choice(CUTS), source.random())],
            seed=source.getrandbits(32),
            tool=source.choice(("tool_calls", "function_call")),
        )
        for number in range(200)
    }
    tools = [{"type": "function", "function": {"name": "weather"}}]
    found = await ask_all(start, scripts, PATIENT, **({"tools": tools} if declared else {}))
    # Where the caller had nothing before the cut, another call gives the whole answer.
    assert sum(script.dispatches == 1 for script, _ in found) >= 190
    for script, answer in found:
        assert not is_continued(answer) and answer.body.count(b'"weather"') == 1
        assert answer.done == (script.dispatches > 1)
        assert answer.text == script.text if answer.done else "error" in answer.chunks[-1]
