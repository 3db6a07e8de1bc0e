"""The search for the highest rate finds the known highest rate of simulated services."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

import pytest

from hubbub.loadtest.find_max import Trial, find_max


def service(
    highest: float, *, noise: float = 0.0, seed: int = 1, limit: float = 1e9
) -> Callable[[float], Awaitable[Trial]]:
    rng = random.Random(seed)

    async def attempt(factor: float) -> Trial:
        held = factor <= highest * (1 + rng.uniform(-noise, noise))
        return Trial(factor, 5000 * factor, 0, held and factor < limit, 1.0, 1.0, "", factor >= limit)

    return attempt


@pytest.mark.parametrize("highest", [0.03, 0.2, 0.5, 0.77, 1.0, 1.3, 6.0, 40.0])
async def test_the_search_finds_the_highest_rate_within_five_percent(highest: float) -> None:
    found = await find_max(service(highest))
    assert highest / 1.05 <= found.factor <= highest
    assert found.failed is not None
    assert found.failed > highest
    assert found.held_of == (3, 3)
    assert found.failed_of == (2, 2)


@pytest.mark.parametrize("seed", range(10))
async def test_noise_moves_the_result_by_no_more_than_the_noise(seed: int) -> None:
    found = await find_max(service(1.3, noise=0.05, seed=seed))
    assert 1.3 * 0.9 <= found.factor <= 1.3 * 1.05


async def test_a_service_that_holds_nothing_gives_zero() -> None:
    found = await find_max(service(0.0))
    assert found.factor == 0
    assert len(found.trials) < 30


async def test_the_search_stops_where_the_generator_is_the_limit() -> None:
    found = await find_max(service(100, limit=3.0))
    assert found.limited
    assert found.factor == 2.0


async def test_the_search_stops_at_the_end_of_its_range() -> None:
    found = await find_max(service(1e9))
    assert found.factor == 64
    assert found.failed is None
