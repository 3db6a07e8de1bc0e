"""Build a schedule, run it with faults, drain it without faults, and check it."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

from tests.model.api import Api
from tests.model.broker import Broker
from tests.model.checker import Checker, Violation
from tests.model.client import Client
from tests.model.faults import Faults
from tests.model.profiles import PROFILES, Profile
from tests.model.redis import Chat, Redis
from tests.model.rules import Rules
from tests.model.store import Store
from tests.model.world import World
from tests.model.writer import Writer

DRAIN = 3000  # steps; far more than are needed


class Ran(NamedTuple):
    """The result of a schedule."""

    violation: Violation | None
    world: World


def build(draw: Callable[[], float], rules: Rules, profile: Profile, trace: list[str] | None = None) -> World:
    world = World(draw, rules, profile, trace)
    world.store = store = Store(world, profile.chats)
    world.broker = Broker(world)
    redis = Redis(world)
    world.servers = [redis]
    store.generations = [redis.name]
    redis.barriers[1] = None
    for chat in range(profile.chats):
        opened = redis.chats[1, chat] = Chat(1, 0, 0, 0, {})
        opened.live = True
    world.checker = Checker(world)
    world.apis = [Api(world, index) for index in range(2)]
    world.writers = [Writer(world, index) for index in range(2)]
    world.clients = [Client(world, index, profile.requests) for index in range(profile.clients)]
    return world


def run(draw: Callable[[], float], rules: Rules, profile: Profile, trace: list[str] | None = None) -> Ran:
    world = build(draw, rules, profile, trace)
    faults = Faults(world)
    calm = 1.0 - profile.rate
    step, strike = world.step, faults.strike
    try:
        for _ in range(profile.steps):
            if draw() >= calm:
                strike()
            step()
        _drain(world)
        world.checker.ends(world.store)
    except Violation as violation:
        return Ran(violation, world)
    return Ran(None, world)


def _drain(world: World) -> None:
    """End all faults, let all processes use one Redis, and run until nothing is left to do."""
    world.note("— no more faults —")
    world.calls_hold = 2.0
    world.pause_after = frozenset()
    world.store.down = 0
    for process in (*world.apis, *world.writers):
        process.frozen = 0
        process.redis = 0
    for client in world.clients:
        client.left = min(client.left, 1)
    for _ in range(DRAIN):
        if not world.ready and not world.broker.items:
            break
        world.step()
        if not world.ready and world.broker.items:
            raise Violation("a shard stands still", f"{[item[0] for item in world.broker.items]} wait")
    else:
        raise Violation("it does not come to an end", f"{len(world.ready)} tasks, {world.broker.items}")


def run_seed(seed: int, rules: Rules, profiles: tuple[Profile, ...] = PROFILES, trace: list[str] | None = None) -> Ran:
    return run(random.Random(seed).random, rules, profiles[seed % len(profiles)], trace)
