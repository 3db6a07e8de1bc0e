"""A cluster's store for the suites of ports: commands are stored when ``apply`` returns."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from hubbub.chat.commands import Command, DeleteMessage, EditMessage, Outcome, PostMessage
from hubbub.chat.errors import KeyReused, NotFound
from hubbub.cluster.database import Database
from hubbub.cluster.deliveries import Deliveries
from hubbub.cluster.erasing import Erasing
from hubbub.cluster.migrate import migrate
from hubbub.cluster.protocol import Delete, Delivery, Edit, Failed, Gone, Post, Queued, Repeated
from hubbub.cluster.store import MySqlStore


def queued(command: Command) -> Queued:
    """Return a message command in its queued form, without an epoch or an order."""
    if isinstance(command, PostMessage):
        fields = command.number, command.sender_id, command.sender_name, command.body, command.created_at
        return Post(command.chat, *fields, command.key, command.body_hash, sender_ref=command.sender_ref)
    if isinstance(command, EditMessage):
        return Edit(command.chat, command.number, command.editor_id, command.body, command.edited_at)
    assert isinstance(command, DeleteMessage)
    return Delete(command.chat, command.number, command.deleter_id, command.any_sender)


class ClusterStore(MySqlStore):
    """A store whose ``apply`` takes message commands too, each in a delivery of its own."""

    def __init__(self, url: str, replicas: Sequence[str] = ()) -> None:
        self.database = Database(url, replicas)
        migrate(self.database.engine)
        super().__init__(self.database)
        self.deliveries = Deliveries(self.database, self.uncounted, note_changes=False)

    def close(self) -> None:
        self.database.close()

    def erase(self) -> None:
        """Erase deleted content as the writers do, until nothing is left."""
        erasing = Erasing(self.database, note_changes=False)
        while (erasure := erasing.next()) is not None:
            erasing.some(erasure)

    def apply(self, batch: Sequence[Command]) -> list[Outcome]:
        outcomes: list[Outcome] = []
        for command in batch:
            if isinstance(command, PostMessage | EditMessage | DeleteMessage):
                applied = self.deliveries.apply(0, 4, [Delivery(secrets.token_hex(8), 1, [queued(command)], 0)])
                (found,) = applied.outcomes[0] or [None]
                outcomes.append(_as_answered(found))
            else:
                outcomes += super().apply([command])
        return outcomes


def _as_answered(outcome: Outcome) -> Outcome:
    if isinstance(outcome, Gone):
        return NotFound("There is no such chat.")
    if isinstance(outcome, Repeated):
        return outcome.number
    if isinstance(outcome, Failed) and "Idempotency-Key" in outcome.reason:
        return KeyReused(outcome.reason)
    return outcome
