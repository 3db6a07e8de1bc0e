"""The load of `hubbub perftest`, for those who use Locust: writes and reads as one to two, half of the reads of each.

    pip install locust
    locust -f deploy/locustfile.py --host http://127.0.0.1:3000 --headless -u 100 -r 100 -t 30s

Locust is a closed model: a user waits for each answer before it asks again, so a slow service is asked less, and what
it would have kept waiting is not in the latencies. For figures to judge by, use `hubbub perftest`.
"""

import itertools

from locust import HttpUser, constant_throughput, task

_numbers = itertools.count()
_PASSWORD = "performance-test"  # noqa: S105 - of users that exist for tests alone


class Member(HttpUser):
    """One user with an application and a chat of its own, who asks 150 times a second as far as it is answered."""

    wait_time = constant_throughput(150)

    def on_start(self) -> None:
        number = next(_numbers)
        account = {"email": f"locust{number}@example.com", "password": _PASSWORD}
        named = account | {"name": f"Locust {number}"}
        with self.client.post("/api/v1/auth/register", json=named, catch_response=True, name="set up") as answer:
            answer.success()  # 422: it is there from an earlier run
            known = answer.status_code == 422
        if known:
            self.client.post("/api/v1/auth/login", json=account, name="set up")
        listed = self.client.get("/api/v1/applications", name="set up").json()
        token = listed[0]["token"] if listed else self._made("/api/v1/applications", {"name": "Locust"})["token"]
        self.chats = f"/api/v1/applications/{token}/chats"
        listed = self.client.get(self.chats, name="set up").json()
        number = listed[0]["chatNumber"] if listed else self._made(self.chats, None)["chatNumber"]
        self.messages = f"{self.chats}/{number}/messages"

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
