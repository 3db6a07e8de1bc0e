"""The number of examples that the fuzzers try."""

from __future__ import annotations

import pytest


@pytest.fixture
def fuzz_examples(request: pytest.FixtureRequest) -> int:
    """Examples for each operation: a few, or many with --fault-rounds."""
    return 6 if request.config.getoption("--fault-rounds") is None else 300
