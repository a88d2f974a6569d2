"""Ask upstreams what attempts really cost whose bill is a guess, and put the books right."""

from collections.abc import Mapping

from sophia.core.calls import Usage
from sophia.core.ports import Upstream
from sophia.core.rows import Doubt
from sophia.serving.tab import Books

_FIRST_LOOK = 7 * 86_400.0
_LATER_LOOK = 15 * 60.0


class ResolveDoubts:
    """Looks a week back the first time, a quarter of an hour after that; asks only who can tell."""

    def __init__(self, books: Books, upstreams: Mapping[str, Upstream]) -> None:
        self._books = books
        self._upstreams = upstreams
        self._seconds = _FIRST_LOOK

    async def __call__(self) -> None:
        """Ask once for each open guess."""
        since = self._books.clock.wall() - self._seconds
        for doubt in await self._books.store.unresolved(int(since * 1000)):
            upstream = self._upstreams.get(doubt.upstream)
            if upstream is None or not upstream.bills:
                continue
            usage = await upstream.bill(doubt.outcome.generation_id or "")
            if usage is not None and usage.cost_nano is not None:
                self._correct(doubt, usage, usage.cost_nano)
        self._seconds = _LATER_LOOK

    def _correct(self, doubt: Doubt, usage: Usage, cost_nano: int) -> None:
        known, books = doubt.outcome, self._books
        if known.state == "unknown":
            books.coordinator.settle(known.key_id, known.window, doubt.held_nano, cost_nano)
        else:
            books.coordinator.settle(known.key_id, known.window, 0, cost_nano - known.cost_nano)
        books.store.settle(
            known._replace(
                state="settled",
                cost_nano=cost_nano,
                cost_source="upstream",
                prompt_tokens=usage.prompt_tokens,
                completion_tokens=usage.completion_tokens,
            )
        )
