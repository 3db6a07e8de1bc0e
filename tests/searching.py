"""The search index as the processes that serve use it, with a thread of the test instead of the other process."""

from __future__ import annotations

import socket
import sqlite3
from collections.abc import AsyncIterator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx

from hubbub.chat.commands import AddApplication, AddChat, AddUser, Command, DeleteMessage, EditMessage, PostMessage
from hubbub.chat.model import ChatKey
from hubbub.chat.ports import Document
from hubbub.chat.search import parse
from hubbub.embedded.child import Sender
from hubbub.embedded.index import IndexFile, Progress, SqliteIndex
from hubbub.embedded.index_chats import FOUND
from hubbub.embedded.indexer import SMALL, Indexer
from hubbub.embedded.scan import Scan
from hubbub.embedded.search_process import Searching, SearchProcess
from hubbub.embedded.store import SqliteStore
from tests.committing import run_beside


def put(file: IndexFile, documents: Sequence[Document], progress: Progress | None = None) -> None:
    """Add the documents to an index that has all of their chats."""
    have_all(file, {each.chat for each in documents})
    file.add(documents, progress)


def have_all(file: IndexFile, chats: Iterable[ChatKey]) -> None:
    """Note that the index has these chats up to any number, as one of 0.1.0 has."""
    file._writing.executemany("INSERT OR IGNORE INTO chats (token, number) VALUES (?, ?)", sorted(chats))
    file._chats.forget()


def search_beside(index: SqliteIndex, channels: Sequence[socket.socket], scan: Scan | None = None) -> None:
    """Answer on these sockets, all of which are closed once the other end of the first is. Without a ``scan`` the index
    is asked itself."""
    indexer = cast(Any, SimpleNamespace(fault=None))
    searching = Searching(channels, Sender(channels[0]), cast(Any, None), index, indexer, cast(Any, scan or index))
    run_beside(channels, searching.run)


async def connected(channel: socket.socket) -> SearchProcess:
    """What a process that serves with this end of a socket knows of the index."""
    process = SearchProcess(lambda _: None, lambda _: None)
    await process.connect(channel)
    return process


class Searched:
    """A store, its index, and what searches do: they ask the index, and read what it does not have. ``step`` lets the
    indexer do one step, without a rest, unless it ``runs`` by itself. The store has one user and one application.
    """

    def __init__(self, folder: Path, *, small: int, application: str = "T", runs: bool = False) -> None:
        self.folder = folder
        self.application = application
        self.store = SqliteStore(folder / "hubbub.db")
        self.store.apply([AddUser("a", "a@x", "A", "h", 1), AddApplication(application, "T", 1, 1)])
        self._chats = 0
        self._small = small
        self._runs = runs
        self.open()

    def open(self) -> None:
        """Begin as a new process would."""
        self.index = SqliteIndex(self.folder, 1)
        kind = Indexer if self._runs else ByHand
        self.indexer = kind(self.store.following, self.index, self.store.indexed, self._small)
        self.scan = Scan(self.store, self.index, self.indexer.ask)

    def close(self) -> None:
        self.indexer.close()
        self.index.close()

    def step(self) -> None:
        self.indexer._rest_until = 0.0
        self.indexer._step()

    def steps(self) -> int:
        """Do steps until the index has everything. Returns their number."""
        count = 0
        while not self.is_done():
            self.step()
            count += 1
            assert count < 1000
        return count

    def is_done(self) -> bool:
        file = self.index.current
        if file is None or file.position != self.store.following.last_change():
            return False
        return not (file.waiting() or file.due() or self.indexer._asked)

    def has(self, chat: ChatKey) -> bool:
        """Whether the index has taken in the chat."""
        file = self.index.current
        assert file is not None
        return file.reached(chat) > 0 and chat not in {each.chat for each in file.due()}

    def put(self, documents: Sequence[Document]) -> None:
        """Bring the messages into the store: post, edit or delete them."""
        commands: list[Command] = []
        for chat, number, body, _, edited in documents:
            while self._chats < chat.number:
                self.store.apply([AddChat(self.application, None, 1)])
                self._chats += 1
            there = self.store.scanned(chat, number - 1, number + 1, 1)[1] == [number]
            if body is None:
                commands.append(DeleteMessage(chat, number, 1, any_sender=False))
                continue
            if not there:
                commands.append(PostMessage(chat, number, 1, "a", "A", body, 1))
            if there or edited:
                commands.append(EditMessage(chat, number, 1, body, 2))
        self.store.apply(commands)

    def numbers(self, chat: ChatKey, q: str, *, typos: bool = False) -> list[int]:
        found = self.scan.candidates(chat, parse(q), typos=typos)
        assert found.whole
        return found.numbers


class ByHand(Indexer[IndexFile]):
    """An indexer that does nothing by itself."""

    def _run(self) -> None: ...


def grow(person: httpx.Client, chat: str) -> None:
    """Post so many messages to a chat of ``hubbub serve`` that its index takes them in. No search finds them."""

    def post(_: int) -> int:
        return person.post(f"{chat}/messages", json={"body": "."}).status_code

    with ThreadPoolExecutor(4) as threads:
        assert set(threads.map(post, range(SMALL + 1))) == {200}


def is_indexed(data: Path, chat: str) -> bool:
    """Whether the index of this data folder has taken in the chat."""
    _, _, token, _, number = chat.split("/")
    (file,) = data.glob("search-*.db")
    with closing(sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        found = connection.execute(FOUND, (token, int(number))).fetchone() or (0, 0)
        (due,) = connection.execute("SELECT count(*) FROM parts WHERE id = ? AND due", found[:1]).fetchone()
        return found[1] > 0 and not due


@asynccontextmanager
async def asked_over_a_socket(index: SqliteIndex, scan: Scan | None = None) -> AsyncIterator[SearchProcess]:
    """The index as the process that serves sees it. The process that has it is a thread of the test."""
    ours, theirs = socket.socketpair()
    search_beside(index, [theirs], scan)
    process = await connected(ours)
    yield process
    await process.close()
