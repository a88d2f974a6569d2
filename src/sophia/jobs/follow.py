"""Timer that takes over what other processes have changed in the store."""

from collections.abc import Awaitable, Callable, Mapping

from sophia.core.ports import Store


class ChangeFollower:
    """Calls the handler of each topic that has changed; all of them the first time."""

    def __init__(
        self, store: Store, handlers: Mapping[str, Callable[[], Awaitable[object]]]
    ) -> None:
        self._store = store
        self._handlers = handlers
        self._changed = set[str]()

    async def __call__(self) -> None:
        """Look once. Raises Unavailable; missed changes are taken over the next time."""
        self._changed.update(await self._store.changed_topics())
        for topic in tuple(self._changed):
            if topic in self._handlers:
                await self._handlers[topic]()
            self._changed.discard(topic)
