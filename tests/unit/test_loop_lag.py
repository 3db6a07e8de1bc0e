"""The event loop's lag is measured and logged, but not too often."""

from __future__ import annotations

import time

import pytest

from hubbub.loop_lag import LoopLag
from tests.conftest import eventually_async


def over(lag: LoopLag, seconds: float) -> float:
    """Return how many of the measured lags were longer than this."""
    counts = lag.lags.series.get((), [0.0])
    return sum(
        count for bound, count in zip((*lag.lags.bounds[1:], 1e9), counts[1:-1], strict=False) if bound > seconds
    )


async def test_a_blocked_loop_is_measured_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    lag = LoopLag()
    with lag.watched():
        await eventually_async(lambda: bool(lag.lags.series))
        for times in (1, 2):
            time.sleep(0.4)  # noqa: ASYNC251 - the loop is blocked
            await eventually_async(lambda times=times: over(lag, 0.25) >= times)  # type: ignore[misc]
    warnings = [record.getMessage() for record in caplog.records if "event loop" in record.getMessage()]
    assert len(warnings) == 1
