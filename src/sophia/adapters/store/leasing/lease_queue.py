"""Requests for leases that wait for a transaction, which grants all of them."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from sophia.core.errors import Unavailable
from sophia.core.rows import Lease, LeaseRequest

_MOST = 100
"""Requests of one transaction, in which their accounts are locked for other workers."""

Grant = Callable[[Sequence[LeaseRequest]], Awaitable[Sequence[Lease]]]


class LeaseQueue:
    """Collects requests while `grant` runs; a commit costs far more than one more account in it."""

    def __init__(self, grant: Grant) -> None:
        self._grant = grant
        self._waiting: list[tuple[LeaseRequest, asyncio.Future[Lease]]] = []
        self._granting: asyncio.Task[None] | None = None

    async def lease(self, request: LeaseRequest) -> Lease:
        """Return what is granted. Raises Unavailable."""
        future: asyncio.Future[Lease] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, future))
        if self._granting is None or self._granting.done():
            self._granting = asyncio.create_task(self._grant_all())
        return await future

    async def close(self) -> None:
        """Wait for the requests under way."""
        if self._granting is not None:
            await self._granting

    async def _grant_all(self) -> None:
        while self._waiting:
            some, self._waiting = self._waiting[:_MOST], self._waiting[_MOST:]
            results = await self._try_grant([request for request, _ in some])
            for (_, future), result in zip(some, results, strict=True):
                if future.done():
                    continue
                if isinstance(result, Exception):
                    future.set_exception(result)
                else:
                    future.set_result(result)

    async def _try_grant(self, requests: Sequence[LeaseRequest]) -> list[Lease | Exception]:
        """Return leases that are granted together, or one by one if a request is impossible."""
        try:
            return list(await self._grant(requests))
        except Unavailable as error:
            return [error] * len(requests)
        except Exception as error:  # noqa: BLE001 - goes to whoever waits for the lease
            if len(requests) == 1:
                return [error]
        return [result for each in requests for result in await self._try_grant([each])]
