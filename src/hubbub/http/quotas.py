"""How much of what stays one user may make at this process."""

from __future__ import annotations

import time
from collections.abc import Callable

from hubbub.chat.quotas import HOUR_S, Hourly, Made, made_too_many

_MOST = 100_000


class LocalQuotas:
    """See chat.quotas.Quotas, of a service that is one process.

    Kept for each user and kind is the moment at which all would be used up that was made, were it made evenly: at most
    an hour ahead. Past a hundred thousand of them, those are let go of that are not ahead any more; then the oldest.
    """

    def __init__(self, hourly: Hourly, clock: Callable[[], float] = time.monotonic) -> None:
        self._hourly = hourly
        self._clock = clock
        self._due: dict[tuple[int, Made], float] = {}

    async def take(self, user_id: int, what: Made) -> None:
        now = self._clock()
        limit = self._hourly.of(what)
        due = max(self._due.pop((user_id, what), now), now) + HOUR_S / limit
        early = due - now - HOUR_S
        if early > 1e-6:
            self._due[user_id, what] = due - HOUR_S / limit
            raise made_too_many(what, limit, early)
        self._due[user_id, what] = due
        if len(self._due) > _MOST:
            self._due = {key: due for key, due in self._due.items() if due > now}
            while len(self._due) > _MOST * 3 // 4:
                del self._due[next(iter(self._due))]
