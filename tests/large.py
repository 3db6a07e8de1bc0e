"""Make a large data folder in seconds, with as much as a service has after years and with the longest texts."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from hubbub.chat.commands import AddApplication, AddChat, AddUser, PostMessage, SetOperator
from hubbub.chat.model import ChatKey
from hubbub.embedded.data_folder import DataFolder
from hubbub.embedded.store import SqliteStore
from hubbub.http.passwords import Argon2Passwords

TOKEN = "large"
EMAIL = "a@example.com"
PASSWORD = "a long password"
LONGEST = "\x01" * 10_000  # six bytes each as JSON
_LONG = 300  # this many messages at each end of the chat are the longest possible
_WORDS = " ".join(f"ab{letter}" for letter in "cdefghijklmnopqrstuvwxyz0123456789") + " "
SEARCHED = [(_WORDS * 80)[:9990], ("a" * 49 + "b") * 199]  # texts that take the queries of tests/worst.py longest


@dataclass(frozen=True)
class Sizes:
    """The numbers of messages of one chat, chats and members of its application, and applications of its owner."""

    messages: int
    chats: int
    members: int
    applications: int


def fill(path: Path, sizes: Sizes) -> None:
    """Make the folder. Chat 1 lacks the first message, so the offset of a page can't be computed, and has the longest
    messages at both ends. Chat 2 has the texts that take a search longest. User 1 has sent all messages.
    """
    folder = DataFolder.open(path)
    store = SqliteStore(folder.database)
    passwords = Argon2Passwords()
    password_hash = asyncio.run(passwords.hash(PASSWORD))
    passwords.close()
    store.apply([AddUser(f"ref-{email}", email, "A", password_hash, 1) for email in (EMAIL, "b@example.com")])
    store.apply([SetOperator(EMAIL, operator=True)])
    store.apply([AddApplication(TOKEN, "n" * 255, 1, 1), AddChat(TOKEN, None, 1), AddChat(TOKEN, None, 1)])
    bodies = [f"{SEARCHED[at % 2]} {at}"[:10_000] for at in range(1000)]
    store.apply([PostMessage(ChatKey(TOKEN, 2), at, 1, "ref", "A", body, at) for at, body in enumerate(bodies, 1)])
    store.close()
    with closing(sqlite3.connect(folder.database)) as database, database:
        _add_many(database, sizes)
    folder.close()


def _add_many(database: sqlite3.Connection, sizes: Sizes) -> None:
    def each(most: int) -> str:
        return f"(WITH RECURSIVE up (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM up WHERE n < {most}) SELECT n FROM up)"

    database.execute(
        "INSERT INTO messages (chat_id, number, sender_id, created_at, body) SELECT 1, n + 1, 1, n, CASE"
        f" WHEN n <= ?1 OR n > ?2 THEN ?3 ELSE 'message ' || n END FROM {each(sizes.messages)}",
        (_LONG, sizes.messages - _LONG, LONGEST),
    )
    database.execute("UPDATE chats SET counted = ?1, counted_to = ?1 + 1 WHERE id = 1", (sizes.messages,))
    database.execute("UPDATE chats SET counted = 1000, counted_to = 1000 WHERE id = 2")
    database.execute(
        f"INSERT INTO chats (application_id, number, title, created_at) SELECT 1, n + 2, ?, n FROM {each(sizes.chats)}",
        ("\x01" * 255,),
    )
    database.execute("UPDATE applications SET chats_count = ? WHERE id = 1", (sizes.chats + 2,))
    database.execute(
        "INSERT INTO users (ref, email, name, password_hash, created_at)"
        f" SELECT 'ref-' || n, n || '@example.com', ?, 'none', n FROM {each(sizes.members)}",
        ("\x01" * 255,),
    )
    database.execute(
        "INSERT INTO members (user_id, application_id, role) SELECT id, 1, 'member' FROM users WHERE id > 1"
    )
    database.execute(
        "INSERT INTO applications (token, name, created_at)"
        f" SELECT 'application-' || n, ?, n FROM {each(sizes.applications)}",
        ("\x01" * 255,),
    )
    database.execute(
        "INSERT INTO members (user_id, application_id, role) SELECT 1, id, 'owner' FROM applications WHERE id > 1"
    )
