"""Describe the schedule of a seed, without the named rules: ``python -m tests.model SEED [RULE …]``."""

from __future__ import annotations

import sys
from dataclasses import replace

from tests.model.rules import ALL
from tests.model.shrink import explain

print(explain(int(sys.argv[1]), replace(ALL, **dict.fromkeys(sys.argv[2:], False))))
