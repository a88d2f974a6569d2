"""Background tasks end with their owner."""

import asyncio

from sophia.core.background import BackgroundTasks


async def test_closing_without_a_limit_waits_for_all_tasks() -> None:
    tasks, done = BackgroundTasks(), asyncio.Event()

    async def work() -> int:
        await done.wait()
        return 7

    task = tasks.start(work())
    assert len(tasks) == 1
    asyncio.get_running_loop().call_soon(done.set)
    await tasks.close()
    assert task.result() == 7 and len(tasks) == 0


async def test_closing_cancels_tasks_that_outlast_the_limit() -> None:
    tasks = BackgroundTasks()
    task = tasks.start(asyncio.Event().wait())
    await tasks.close(0.0)
    assert task.cancelled()
    await tasks.close()
