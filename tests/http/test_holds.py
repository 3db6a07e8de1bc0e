"""No request to any route blocks the event loop for long, whatever it asks for and however much is stored."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.large import Sizes, fill
from tests.worst import longest_holds

SIZES = Sizes(messages=100_000, chats=20_000, members=20_000, applications=5_000)

# A page of the longest messages is made in slices. The bound is several times a slice's, as the machine may be busy.
MOST_S = {("GET", "/api/v1/applications/{token}/chats/{number}/messages"): 0.05}


async def test_no_request_blocks_the_loop_for_long(tmp_path: Path) -> None:
    await asyncio.to_thread(fill, tmp_path / "data", SIZES)
    found = await longest_holds(tmp_path / "data", SIZES)
    for (method, path), (what, seen) in sorted(found.items(), key=lambda each: -each[1][1].longest_s):
        print(f"{seen.longest_s * 1000:6.1f} ms  {method} {path}  {what}  {seen.what}")
    assert {each: seen for each, (_, seen) in found.items() if seen.longest_s >= MOST_S.get(each, 0.1)} == {}
