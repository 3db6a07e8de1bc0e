"""Searching a chat: the index names candidates, and what is stored now decides."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from hubbub.chat import search
from hubbub.chat.encoding import encode_page
from hubbub.chat.errors import Unavailable
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
    """Those under way in this process. The caller has checked that the searcher is a member."""

    def __init__(self, view: View, index: SearchIndex) -> None:
        self.view = view
        self.index = index
        self.limiter = SearchLimiter()
        self.thread = ThreadPoolExecutor(_THREADS, thread_name_prefix="search-rank")

    async def find(self, user_id: int, key: ChatKey, q: str, *, offset: int, limit: int) -> Page:
        """The messages that match ``q``, best first, then newest, among the newest thousand that do. None of it is
        syntax; with nothing in it that can be searched for, nothing is found. An answer for which work or time did not
        suffice is ``truncated``, and has the best of what was looked at.

        Raises:
            RateLimited: the user has too many searches under way.
            Unavailable: the index can't be asked now, or too many are searching.
        """
        query = search.parse(q)
        if not query.terms:
            return encode_page([], limit)
        with self.limiter.held(user_id):
            return await _Search(self, user_id, key, query).page(offset, limit)


class _Search:
    """One search. ``_known`` are the candidates that were looked up, and whether each is there; ``_kept`` messages that
    match or may, as many as are not too long together to be kept until the end.
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
                raise Unavailable("Nothing could be searched in time. Try again in a moment.", retry_after=1) from error
            ranking.end()
        except BaseException:
            ranking.end()  # a thread may be at it
            raise
        found = ranking.found[offset : offset + limit]
        messages = self._kept
        if not messages.keys() >= set(found):
            messages = {message.number: message for message in await self._turn(self._read(found))}
        shown = [messages[number] for number in found if number in messages]
        return encode_page(shown, limit)._replace(lag=self._lag, truncated=ranking.truncated)

    def _turn(self, work: Coroutine[Any, Any, T]) -> Coroutine[Any, Any, T]:
        return self._searches.limiter.turn(self._user_id, work)

    async def _look(self, *, typos: bool) -> None:
        """Look at the newest candidates, until there are enough of them. Those that are gone, or that match no more,
        don't count: else many of them would hide what is behind them.
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
        """Look at the first of them, as many as make a slice, and say at how many."""
        messages: list[Message] = []
        asked = length = 0
        while asked < len(numbers) and length < _ENOUGH and not self._ranking.over:
            # A lot of long texts is followed by a smaller one: those that are not come to would be read again.
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
        """What is kept is shown as it was when it was looked at; the rest is read again."""
        if self._kept_length + length <= _ENOUGH:
            self._kept_length += length
            self._kept.update((message.number, message) for message in messages)

    async def _read(self, numbers: Sequence[int]) -> list[Message]:
        shown = await self._searches.view.numbered(self._key, numbers)
        self._lag = self._lag or shown.lag
        return shown.messages
