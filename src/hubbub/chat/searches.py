"""Searching a chat: the index finds candidates, and their texts as stored now decide."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from hubbub.chat import search
from hubbub.chat.encoding import encode_messages, page_of
from hubbub.chat.errors import Unavailable
from hubbub.chat.large_pages import encode_in_slices, is_large
from hubbub.chat.model import ChatKey, Message, Page
from hubbub.chat.ports import SearchIndex, View
from hubbub.chat.ranking import SLICE, Ranking
from hubbub.chat.search import CANDIDATES, TYPO_CANDIDATES, Query
from hubbub.chat.search_limiter import SearchLimiter

T = TypeVar("T")

DEADLINE_S = 3.0
_READ = 100  # messages at a time: four megabytes where all are as long as can be
_ENOUGH = SLICE  # characters: more than that can't be looked at in one turn
_LEAST = 50  # candidates to ask for, when those before were not what they seemed
_THREADS = 1  # ranking holds the interpreter's lock, and more threads would only wait for each other


class Searches:
    """The searches of this process. The caller has checked that the user is a member."""

    def __init__(self, view: View, index: SearchIndex) -> None:
        self.view = view
        self.index = index
        self.limiter = SearchLimiter()
        self.thread = ThreadPoolExecutor(_THREADS, thread_name_prefix="search-rank")

    async def find(self, user_id: int, key: ChatKey, q: str, *, offset: int, limit: int) -> Page:
        """The newest thousand messages that match ``q``, best first, then newest. ``q`` has no syntax; if it has
        nothing that can be searched for, nothing is found. When work or time ran out, the answer is ``truncated``, and
        has the best of the messages that were examined.

        Raises:
            RateLimited: the user has too many searches under way.
            Unavailable: the index can't be asked now, or too many are searching.
        """
        query = search.parse(q)
        if not query.terms:
            return page_of([], more=False)
        with self.limiter.held(user_id):
            return await _Search(self, user_id, key, query).page(offset, limit)


class _Search:
    """One search. ``_known`` has the candidates that were looked up, and whether each exists; ``_kept`` has examined
    messages to be shown at the end, up to a total length.
    """

    def __init__(self, searches: Searches, user_id: int, key: ChatKey, query: Query) -> None:
        self._searches = searches
        self._user_id = user_id
        self._key = key
        self._query = query
        self._ranking = Ranking(query)
        self._known: dict[int, bool] = {}
        self._kept: dict[int, Message] = {}
        self._kept_length = 0
        self._lot = _READ
        self._lag = False

    async def page(self, offset: int, limit: int) -> Page:
        ranking = self._ranking
        try:
            async with asyncio.timeout(DEADLINE_S):
                await self._look(typos=False)
                if ranking.count <= offset + limit and not ranking.over:  # those with typos come after all of these
                    await self._look(typos=True)
        except TimeoutError as error:
            if not ranking.looked_at:
                raise Unavailable("The search ran out of time. Try again in a moment.", retry_after=1) from error
            ranking.end()
        except BaseException:
            ranking.end()  # a thread may be at it
            raise
        found = ranking.found[offset : offset + limit]
        messages = self._kept
        if not messages.keys() >= set(found):
            messages = {message.number: message for message in await self._turn(self._read(found))}
        shown = [messages[number] for number in found if number in messages]
        items = await self._turn(encode_in_slices(shown)) if is_large(shown) else encode_messages(shown)
        return page_of(items, more=False)._replace(lag=self._lag, truncated=ranking.truncated)

    def _turn(self, work: Coroutine[Any, Any, T]) -> Coroutine[Any, Any, T]:
        return self._searches.limiter.turn(self._user_id, work)

    async def _look(self, *, typos: bool) -> None:
        """Examine the newest candidates until there are enough. Candidates that are gone, or don't match any more,
        don't count; otherwise many of them would hide older matches.
        """
        ranking, most, below = self._ranking, TYPO_CANDIDATES if typos else CANDIDATES, None
        wanted, there = most, 0
        while wanted > 0:
            limit = max(wanted, _LEAST)
            asked = self._searches.index.candidates(self._key, self._query, typos=typos, limit=limit, below=below)
            named = await self._turn(asked)
            await self._look_at([number for number in named.numbers if number not in self._known])
            if not named.whole or ranking.over:
                ranking.end()
            if ranking.truncated or len(named.numbers) < limit:
                return
            below = named.numbers[-1]
            there += sum(self._known[number] for number in named.numbers)
            wanted = most - (there if typos else ranking.count)

    async def _look_at(self, numbers: Sequence[int]) -> None:
        at = 0
        while at < len(numbers) and not self._ranking.over:
            at += await self._turn(self._step(numbers[at:]))
        if at < len(numbers):
            self._ranking.end()

    async def _step(self, numbers: Sequence[int]) -> int:
        """Examine the first of them, as many as fit into a slice. Returns how many were examined."""
        messages: list[Message] = []
        asked = length = 0
        while asked < len(numbers) and length < _ENOUGH and not self._ranking.over:
            # After a lot of long texts the next lot is smaller: texts that are not reached would be read again.
            lot = numbers[asked : asked + self._lot]
            read = await self._read(lot)
            messages += sorted(read, key=lambda message: -message.number)
            asked += len(lot)
            length += sum(len(message.body) for message in read)
        loop = asyncio.get_running_loop()
        done = await loop.run_in_executor(self._searches.thread, self._ranking.look, messages)
        self._lot = _READ if done == len(messages) else max(1, done)
        if done < len(messages):
            asked = numbers.index(messages[done].number)
        self._ranking.named(asked)
        self._keep(messages[:done], length)
        self._known.update(dict.fromkeys(numbers[:asked], False))
        self._known.update((message.number, True) for message in messages[:done])
        return asked

    def _keep(self, messages: Sequence[Message], length: int) -> None:
        """Keep examined messages to be shown as they were; all others are read again."""
        if self._kept_length + length <= _ENOUGH:
            self._kept_length += length
            self._kept.update((message.number, message) for message in messages)

    async def _read(self, numbers: Sequence[int]) -> list[Message]:
        shown = await self._searches.view.numbered(self._key, numbers)
        self._lag = self._lag or shown.lag
        return shown.messages
