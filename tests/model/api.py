"""An API process, and what it does with a request."""

from __future__ import annotations

from typing import Any

from tests.model.command import Command
from tests.model.publisher import Publisher
from tests.model.redis import GONE, Redis
from tests.model.world import Lost, Process, Steps, Task, World

REFUSED = "503, nothing was stored"
UNKNOWN = "503"


class Request:
    """A client's request, see client.py. ``answer`` is None until there is one, and then ``waiter`` is woken.

    ``order`` is the order of a change, for the checker.
    """

    __slots__ = ( "answer", "chat", "claim", "faulty", "kind", "lag", "number", "order", "task", "text", "used",
        "waiter",
    )  # fmt: skip

    def __init__(self, kind: str, chat: int, number: int = 0, text: int = 0, claim: Any = None) -> None:
        self.kind = kind
        self.chat = chat
        self.number = number
        self.text = text
        self.claim = claim
        self.answer: Any = None
        self.lag = False
        self.order = 0
        self.used = 0  # a number that was taken and could not be given back
        self.faulty = False
        self.task: Task | None = None
        self.waiter: Task | None = None


class Api(Process):
    """An API process. It learned ``generation`` and ``set_name`` from the store, with its query at ``read_at``."""

    __slots__ = ("generation", "lease", "publisher", "read_at", "requests", "set_name", "usable", "world")

    def __init__(self, world: World, index: int) -> None:
        super().__init__(f"api{index}.{world.unique()}")
        self.world = world
        self.publisher = Publisher(world)
        self.generation = 0
        self.set_name = 0
        self.lease = world.profile.lease
        self.read_at = -self.lease
        self.usable = False
        self.requests: list[Request] = []

    def begin(self, request: Request) -> None:
        self.requests.append(request)
        request.task = self.world.spawn(self, self._serve(request))

    def _serve(self, request: Request) -> Steps:
        yield
        serve = {"post": self._post, "edit": self._change, "delete": self._change, "list": self._list, "get": self._get}
        answer = yield from serve[request.kind](request)
        self.requests.remove(request)
        self.finish(request, answer)

    def finish(self, request: Request, answer: Any) -> None:
        request.answer = answer
        if request.waiter is not None:
            waiter, request.waiter = request.waiter, None
            self.world.wake(waiter)

    # Generations ----------------------------------------------------------------------------------------------

    def _renew(self) -> Steps:
        """Read the newest generation, if it was last read long ago."""
        world = self.world
        for _ in range(2):
            if self.usable and world.now < self.read_at + self.lease // 2:
                return
            begun = world.now
            try:
                newest, name, usable = yield from world.query(self, world.store.beat, self.name, self.generation)
            except Lost:
                holds = begun <= self.read_at + self.lease or not world.rules.only_prolongs
                if world.store.down > world.now and self.usable and holds:
                    self.read_at = begun  # the store answers nobody, so there can be no new generation
                return
            usable = usable and (newest == self.generation or newest == 1)
            if newest < self.generation or (newest == self.generation and begun < self.read_at):
                return  # the answer is older than what is known
            self.generation, self.set_name, self.usable, self.read_at = newest, name, usable, begun

    def _found(self, name: int) -> Steps:
        """Handle the name of a data set from Redis. If the generation has another one, make the next generation."""
        world, rules = self.world, self.world.rules
        if name == self.set_name or not rules.data_set:
            return
        if not rules.generation:
            self.set_name = name
            return
        try:
            yield from world.query(self, world.store.make, self.generation, name)
        except Lost:
            return
        self.usable = False

    def _vouched(self, generation: int, name: int) -> Steps:
        """Return whether an answer from this data set may be given now. Read the generation again if it is old."""
        rules = self.world.rules
        if rules.lease and self.usable and self.world.now > self.read_at + self.lease:
            yield from self._renew()
        if name != self.set_name and rules.data_set:
            return False
        if not rules.generation:
            return True
        if self.generation != generation or not self.usable:
            return False
        return self.world.now <= self.read_at + self.lease or not rules.lease

    # Posts ----------------------------------------------------------------------------------------------------

    def _post(self, request: Request) -> Steps:
        publisher, rules = self.publisher, self.world.rules
        if publisher.full and rules.place_first:
            return REFUSED
        publisher.held += 1
        answer = yield from self._post_held(request)
        publisher.held -= 1
        return answer

    def _post_held(self, request: Request) -> Steps:
        world, rules, publisher = self.world, self.world.rules, self.publisher
        yield from self._renew()
        if not self.usable:
            return UNKNOWN
        chat, claim, generation, name = request.chat, request.claim, self.generation, self.set_name
        look = None
        begun_as = publisher.name
        while True:
            try:
                kind, number, epoch, found = yield from world.ask(self, Redis.number, generation, chat, claim, look)
            except Lost:
                return UNKNOWN
            if found != name and rules.data_set and rules.number_names_set:
                yield from self._found(found)
                return UNKNOWN
            if kind == "closed":
                yield from self._open(chat, generation, name)
                return UNKNOWN
            if kind != "look":
                break
            try:
                stored = yield from world.query(self, world.store.key, claim)
            except Lost:
                return UNKNOWN
            if stored:
                return stored
            look = epoch, number
        lost_place = publisher.down > world.now or (publisher.name != begun_as and rules.new_name)
        if lost_place or (not rules.place_first and publisher.held > 2):
            # Never sent: the number and the key go back.
            given_back = False
            if kind == "known":
                return UNKNOWN
            if rules.gives_back and rules.place_first:
                try:
                    given_back = yield from world.ask(self, Redis.give_back, generation, chat, epoch, number, claim)
                except Lost:
                    return UNKNOWN
            if not given_back and rules.gives_back and rules.place_first:
                return UNKNOWN
            request.used = 0 if given_back else number
            return REFUSED
        command = Command("post", chat, number, request.text, epoch=epoch, claim=claim, faulty=request.faulty)
        if not (yield from publisher.send(request, command)):
            return UNKNOWN
        try:
            shown, found = yield from world.ask(self, Redis.show_post, generation, chat, epoch, number, request.text)
        except Lost:
            return UNKNOWN if rules.error_is_refusal else number
        if not shown or not (yield from self._vouched(generation, found)):
            yield from self._found(found)
            return UNKNOWN
        return number

    def _open(self, chat: int, generation: int, name: int) -> Steps:
        """Announce a marker, then send it. The request doesn't wait for it, because the client tries again."""
        candidate = self.world.unique()
        try:
            announced = yield from self.world.ask(self, Redis.announce, generation, chat, candidate)
        except Lost:
            return
        if announced or not self.world.rules.announced:
            self._send_alone(Command("open", chat, candidate=candidate, generation=generation, name=name))

    def _barrier(self, generation: int) -> Steps:
        candidate = self.world.unique()
        try:
            announced = yield from self.world.ask(self, Redis.announce_barrier, generation, candidate)
        except Lost:
            return
        if announced:
            self._send_alone(Command("barrier", 0, candidate=candidate, generation=generation))

    def _send_alone(self, command: Command) -> None:
        """Send a command without waiting for its confirm."""
        if self.publisher.down > self.world.now:
            return
        request = Request("marker", command.chat)

        def steps() -> Steps:
            yield from self.publisher.send(request, command)

        request.task = self.world.spawn(self, steps())

    # Changes --------------------------------------------------------------------------------------------------

    def _change(self, request: Request) -> Steps:
        publisher, world = self.publisher, self.world
        if publisher.full or publisher.down > world.now:
            return REFUSED
        publisher.held += 1
        answer = yield from self._change_held(request)
        publisher.held -= 1
        return answer

    def _change_held(self, request: Request) -> Steps:
        world, rules, publisher = self.world, self.world.rules, self.publisher
        yield from self._renew()
        if not self.usable:
            return UNKNOWN
        chat, number, generation, name = request.chat, request.number, self.generation, self.set_name
        if not rules.order_then_read and not (yield from self._is_there(request)):
            return UNKNOWN
        begun_as = publisher.name
        try:
            order, epoch, found = yield from world.ask(self, Redis.order, generation, chat, number)
        except Lost:
            return UNKNOWN
        if found != name and rules.data_set and rules.number_names_set:
            yield from self._found(found)
            return UNKNOWN
        if not order:
            yield from self._open(chat, generation, name)
            return UNKNOWN
        request.order = order
        if rules.order_then_read and not (yield from self._is_there(request)):
            return UNKNOWN  # a 404; the note stays, which is harmless
        if publisher.down > world.now or (publisher.name != begun_as and rules.new_name):
            return UNKNOWN
        text = GONE if request.kind == "delete" else request.text
        command = Command(request.kind, chat, number, text, epoch=epoch, order=order)
        if not (yield from publisher.send(request, command)):
            return UNKNOWN
        try:
            shown, found = yield from world.ask(self, Redis.show_change, generation, chat, epoch, order, number, text)
        except Lost:
            return UNKNOWN if rules.error_is_refusal else True
        if not shown or not (yield from self._vouched(generation, found)):
            yield from self._found(found)
            return UNKNOWN
        return True

    def _is_there(self, request: Request) -> Steps:
        text = yield from self._get(request)
        return isinstance(text, int) and text != 0

    # Reads ----------------------------------------------------------------------------------------------------

    def _shown(self, request: Request) -> Steps:
        """Return the chat's floor and entries in Redis, or None if only the store is to be read."""
        world, rules = self.world, self.world.rules
        yield from self._renew()
        generation = self.generation
        if not self.usable:
            request.lag = True
            return None
        try:
            floor, entries, through, found = yield from world.ask(self, Redis.read, generation, request.chat)
        except Lost:
            request.lag = True
            return None
        if rules.reads_are_vouched and not (yield from self._vouched(generation, found)):
            yield from self._found(found)
            request.lag = True
            return None
        if floor is None:
            if not through:
                request.lag = True
                yield from self._barrier(generation)
            return None
        return floor, entries

    def _list(self, request: Request) -> Steps:
        shown = yield from self._shown(request)
        world = self.world
        try:
            stored = yield from world.query(self, world.store.texts, request.chat)
        except Lost:
            return UNKNOWN
        if shown is None:
            return stored
        floor, entries = shown
        found = {number: text for number, text in stored.items() if number <= floor}
        for number, entry in entries.items():
            if entry is not None and entry[1] != GONE:
                found[number] = entry[1]
            elif entry is not None or number > floor:
                found.pop(number, None)
        return found

    def _get(self, request: Request) -> Steps:
        """Return the text, or 0 if there is no message."""
        shown = yield from self._shown(request)
        number = request.number
        if shown is not None:
            floor, entries = shown
            entry = entries.get(number)
            if entry is not None:
                return 0 if entry[1] == GONE else entry[1]
            if number > floor:
                return 0
        try:
            return (yield from self.world.query(self, self.world.store.row, request.chat, number))
        except Lost:
            return UNKNOWN
