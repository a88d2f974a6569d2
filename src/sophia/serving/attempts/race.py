"""Race of two attempts at one request: whichever begins first answers (hedging).

As in Dean and Barroso, The Tail at Scale (2013): a second attempt only once the first is later
than most.
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence

from sophia.serving.attempts.answer import Answer, RequestRecord
from sophia.serving.attempts.targets.classifier import is_final

LOST = "hedge"


async def race(
    record: RequestRecord,
    first: Coroutine[None, None, Answer],
    seconds: float,
    second: Callable[[], Awaitable[Answer] | None],
) -> Answer:
    """Return the first answer; after `seconds` without one `second` starts, if it returns any.

    The loser is cancelled and settled at its probable cost. When both fail, or the first one fails
    for a fault of the request, the failure of the first is raised. A disconnect ends both,
    and the first one closes the request.
    """
    before, record.is_raced = record.is_raced, True
    tasks: list[asyncio.Future[Answer]] = [asyncio.ensure_future(first)]
    try:
        await asyncio.wait(tasks, timeout=seconds)
        if not tasks[0].done() and (other := second()) is not None:
            tasks.append(asyncio.ensure_future(other))
        return await _find_winner(tasks)
    except asyncio.CancelledError:
        await _cancel(tasks[1:])
        record.is_raced = before
        await _cancel(tasks[:1])
        raise
    finally:
        record.is_raced = before


async def _find_winner(tasks: Sequence["asyncio.Future[Answer]"]) -> Answer:
    running = set(tasks)
    while running:
        done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        if tasks[0] in done and (error := tasks[0].exception()) is not None and is_final(error):
            await _cancel(tasks[1:])
            break
        for task in tasks:
            if task in done and task.exception() is None:
                await _cancel([each for each in tasks if each is not task])
                return task.result()
    return tasks[0].result()


async def _cancel(tasks: Sequence["asyncio.Future[Answer]"]) -> None:
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Answer):
            result.reject(LOST, interrupted=True)
