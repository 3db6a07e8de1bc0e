"""The load of `hubbub perftest`, for users of Locust: one write to two reads, half of the reads for chats and half for
messages.

    pip install locust
    locust -f deploy/locustfile.py --host http://127.0.0.1:3000 --headless -u 100 -r 100 -t 30s

Locust is a closed model: a user waits for each answer before it sends the next request, so a slow service gets fewer
requests, and the waiting of those that were not sent is missing from the latencies. For reliable figures, use `hubbub
perftest`.
"""

import itertools
import secrets
from typing import Any

from locust import HttpUser, constant_throughput, events, task

_numbers = itertools.count()
_RUN = secrets.token_hex(4)
_PASSWORD = secrets.token_urlsafe(18)


@events.init.add_listener
def _leave_time_to_clean_up(environment: Any, **_: Any) -> None:
    environment.stop_timeout = 30  # seconds; by default users are cut off


class Member(HttpUser):
    """One user with its own application and chat. It sends 150 requests a second, fewer if answers take longer, and
    deletes what it made when it stops.
    """

    wait_time = constant_throughput(150)
    application = ""

    def on_start(self) -> None:
        number = next(_numbers)
        account = {"name": f"Locust {number}", "email": f"locust{number}-{_RUN}@example.com", "password": _PASSWORD}
        self._made("/api/v1/auth/register", account)
        self.application = f"/api/v1/applications/{self._made('/api/v1/applications', {'name': 'Locust'})['token']}"
        self.chats = f"{self.application}/chats"
        self.messages = f"{self.chats}/{self._made(self.chats, None)['chatNumber']}/messages"

    def on_stop(self) -> None:
        if self.application:
            self.client.delete(self.application, name="clean up")
        self.client.delete("/api/v1/auth/me", json={"currentPassword": _PASSWORD}, name="clean up")

    def _made(self, path: str, body: dict[str, str] | None) -> dict[str, str]:
        made: dict[str, str] = self.client.post(path, json=body, name="set up").json()
        return made

    @task
    def write(self) -> None:
        self.client.post(
            self.messages, json={"body": "Written by a locust, about as long as people write."}, name="send"
        )

    @task
    def list_chats(self) -> None:
        self.client.get(self.chats, name="chats")

    @task
    def list_messages(self) -> None:
        self.client.get(self.messages, name="messages")
