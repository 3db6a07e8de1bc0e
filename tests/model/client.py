"""A client that sends one request after the other, each through any of the API processes."""

from __future__ import annotations

from typing import Any

from tests.model.api import Request
from tests.model.checker import Message
from tests.model.world import PARKED, Process, Steps, World

BROKEN = "no answer"  # the process crashed
ABANDONED = "given up"  # the client waited too long; the request may continue


class Client(Process):
    """A client. ``waits_for`` is its request under way, ``at`` the API process that has it."""

    __slots__ = ("at", "index", "left", "task", "waits_for", "world")

    def __init__(self, world: World, index: int, requests: int) -> None:
        super().__init__(f"client{index}")
        self.world = world
        self.index = index
        self.left = requests
        self.waits_for: Request | None = None
        self.at: Any = None
        self.task = world.spawn(self, self._work())

    def _work(self) -> Steps:
        world, profile = self.world, self.world.profile
        chats = len(world.store.rows)
        while self.left > 0:
            self.left -= 1
            yield
            chat = world.below(chats) if chats > 1 else 0
            choice = world.draw()
            if choice < profile.posts:
                yield from self._post(chat)
                continue
            if choice < profile.posts + profile.reads:
                yield from self._read(Request("list", chat))
                continue
            messages = [message for message in world.checker.messages if message.number and message.chat == chat]
            if not messages:
                yield from self._post(chat)
                continue
            message = messages[-1 - world.below(min(len(messages), 4))]
            if choice < profile.posts + profile.reads + profile.gets:
                yield from self._read(Request("get", chat, message.number))
            elif choice < 1 - profile.deletes:
                yield from self._change(message, Request("edit", chat, message.number, world.unique()))
            else:
                yield from self._change(message, Request("delete", chat, message.number))

    def _ask(self, request: Request) -> Steps:
        world = self.world
        api = self.at = world.apis[world.below(len(world.apis))]
        if world.trace is not None:
            world.note(f"{self.name}: {request.kind} {request.chat}/{request.number} text {request.text} at {api.name}")
        request.waiter = self.task
        self.waits_for = request
        api.begin(request)
        while request.answer is None:
            yield PARKED
        self.waits_for = None
        if world.trace is not None:
            lag = ", lagging" if request.lag else ""
            world.note(f"{self.name}: {request.kind} {request.chat}/{request.number} is {request.answer}{lag}")

    def _post(self, chat: int) -> Steps:
        world, profile = self.world, self.world.profile
        claim = (chat, self.index, world.unique()) if world.draw() < profile.keyed else None
        faulty = claim is None and profile.faulty > 0 and world.draw() >= 1 - profile.faulty
        message = world.checker.post_begins(chat, self.index, claim, faulty=faulty)
        tries = 1 if claim is None else 4
        done = False
        while tries:
            tries -= 1
            request = Request("post", chat, 0, message.text, claim)
            request.faulty = faulty
            yield from self._ask(request)
            done = world.checker.post_ends(message, request) or done
            if done and (message.deletes or world.draw() >= profile.again):
                if message.deletes and tries and world.draw() < profile.again:
                    continue
                return
            if done and not message.deletes and world.draw() < profile.deletes_between:
                yield from self._change(message, Request("delete", chat, message.number))
            if not done and claim is None:
                return

    def _change(self, message: Message, request: Request) -> Steps:
        change = self.world.checker.change_begins(message, request)
        yield from self._ask(request)
        self.world.checker.change_ends(change, request.answer, abandoned=request.answer == ABANDONED)

    def _read(self, request: Request) -> Steps:
        began = self.world.now
        yield from self._ask(request)
        self.world.checker.read_ends(request, began)

    def give_up(self, answer: str) -> None:
        """Stop waiting without an answer."""
        request = self.waits_for
        if request is not None and request.answer is None and request.waiter is not None:
            waiter = request.waiter
            request.waiter = None
            request.answer = answer
            self.world.wake(waiter)
