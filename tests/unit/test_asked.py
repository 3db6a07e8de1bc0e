"""Requests that commands leave in a data folder for the service that has it."""

from __future__ import annotations

import asyncio
from contextlib import closing
from pathlib import Path

import pytest

from hubbub.chat.errors import Unavailable
from hubbub.embedded.data_folder import REBUILD, DataFolder


async def test_a_request_is_tried_until_it_can_be_done_and_the_log_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("hubbub.embedded.data_folder._LOOK_S", 0.001)
    outcomes = ["The disk is full.", "The disk is full.", "Search is starting.", "", "Search is starting.", ""]
    done = 0

    async def rebuild() -> None:
        nonlocal done
        if outcome := outcomes.pop(0):
            raise Unavailable(outcome)
        done += 1

    with closing(DataFolder.open(tmp_path)) as folder:
        serving = asyncio.create_task(folder.when_asked(REBUILD, rebuild))
        for asked in (1, 2):
            DataFolder.ask(tmp_path, REBUILD)
            async with asyncio.timeout(10):
                while DataFolder.is_asked(tmp_path, REBUILD):
                    assert not serving.done()
                    await asyncio.sleep(0.001)
            assert done == asked
        serving.cancel()
    said = [record.getMessage().rpartition(": ")[2] for record in caplog.records]
    assert said == ["The disk is full.", "Search is starting.", "Search is starting."]
