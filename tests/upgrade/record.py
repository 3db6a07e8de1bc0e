"""What the clients of version 0.1.0 did and the answers they got. Every later version must keep these promises."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import httpx

DATA = Path(__file__).parent / "data"


class Place(NamedTuple):
    token: str
    chat: int

    @property
    def path(self) -> str:
        return f"/applications/{self.token}/chats/{self.chat}"


class Key(NamedTuple):
    """An Idempotency-Key that was used."""

    place: Place
    sender: str
    key: str
    body: str
    number: int


class Message(NamedTuple):
    sender: str
    body: str
    edited: bool = False


class Record:
    """The record. ``messages`` has None for a deleted message. People are identified by their email."""

    def __init__(self) -> None:
        self.passwords: dict[str, str] = {}
        self.names: dict[str, str] = {}
        self.applications: dict[str, str] = {}
        self.members: dict[str, dict[str, str]] = {}
        self.titles: dict[Place, str | None] = {}
        self.messages: dict[Place, dict[int, Message | None]] = defaultdict(dict)
        self.keys: list[Key] = []

    def there(self, place: Place) -> dict[int, Message]:
        """The messages of a chat, by number."""
        return {number: message for number, message in self.messages[place].items() if message is not None}

    def next_number(self, place: Place) -> int:
        return max(self.messages[place], default=0) + 1

    def save(self, file: Path) -> None:
        chats: list[dict[str, Any]] = [
            {
                "token": place.token,
                "chat": place.chat,
                "title": title,
                "messages": {str(number): message for number, message in sorted(self.messages[place].items())},
                "keys": [key[1:] for key in self.keys if key.place == place],
            }
            for place, title in self.titles.items()
        ]
        people = [
            {"email": email, "name": self.names[email], "password": self.passwords[email]} for email in self.names
        ]
        applications = [
            {"token": token, "name": name, "members": self.members[token]} for token, name in self.applications.items()
        ]
        whole = {"people": people, "applications": applications, "chats": chats}
        file.write_text(json.dumps(whole, indent=1, ensure_ascii=False) + "\n")

    @classmethod
    def load(cls, file: Path) -> Record:
        whole = json.loads(file.read_text())
        record = cls()
        for person in whole["people"]:
            record.passwords[person["email"]] = person["password"]
            record.names[person["email"]] = person["name"]
        for application in whole["applications"]:
            record.applications[application["token"]] = application["name"]
            record.members[application["token"]] = application["members"]
        for chat in whole["chats"]:
            place = Place(chat["token"], chat["chat"])
            record.titles[place] = chat["title"]
            for number, message in chat["messages"].items():
                record.messages[place][int(number)] = Message(*message) if message is not None else None
            record.keys += [Key(place, *key) for key in chat["keys"]]
        return record


class Client:
    """A person who sends requests and notes the answers in ``record``. Every answer must have the expected status."""

    def __init__(self, record: Record, urls: list[str], email: str) -> None:
        self.email = email
        self._record = record
        self._clients = [httpx.Client(base_url=url + "/api/v1", timeout=30) for url in urls]
        self._turn = 0

    @property
    def cookies(self) -> dict[str, str]:
        return dict(self._clients[0].cookies)

    def close(self) -> None:
        for client in self._clients:
            client.close()

    def ask(self, method: str, path: str, status: int, body: Any = None, **headers: str) -> Any:
        """Send a request, to each process in turn."""
        self._turn += 1
        client = self._clients[self._turn % len(self._clients)]
        answer = client.request(
            method, path, json=body, headers={name.replace("_", "-"): headers[name] for name in headers}
        )
        assert answer.status_code == status, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def register(self, name: str, password: str) -> None:
        body = {"name": name, "email": self.email, "password": password}
        self.ask("POST", "/auth/register", 201, body)
        self._record.passwords[self.email], self._record.names[self.email] = password, name
        self.login()

    def login(self) -> None:
        credentials = {"email": self.email, "password": self._record.passwords[self.email]}
        for client in self._clients:
            assert client.post("/auth/login", json=credentials).status_code == 200

    def application(self, name: str) -> str:
        token: str = self.ask("POST", "/applications", 201, {"name": name})["token"]
        self._record.applications[token] = name
        self._record.members[token] = {self.email: "owner"}
        return token

    def admit(self, token: str, email: str, role: str) -> None:
        self.ask("POST", f"/applications/{token}/members", 201, {"email": email, "role": role})
        self._record.members[token][email] = role

    def chat(self, token: str, title: str | None = None) -> Place:
        place = Place(token, self.ask("POST", f"/applications/{token}/chats", 201, {"title": title})["chatNumber"])
        self._record.titles[place] = title
        return place

    def post(self, place: Place, body: str, key: str | None = None) -> int:
        headers = {"Idempotency_Key": key} if key else {}
        number: int = self.ask("POST", f"{place.path}/messages", 200, {"body": body}, **headers)["messageNumber"]
        if number not in self._record.messages[place]:
            self._record.messages[place][number] = Message(self.email, body)
        else:
            assert key is not None, f"number {number} was given twice"
        if key and not any(used[:3] == (place, self.email, key) for used in self._record.keys):
            self._record.keys.append(Key(place, self.email, key, body, number))
        return number

    def edit(self, place: Place, number: int, body: str) -> None:
        self.ask("PUT", f"{place.path}/messages", 200, {"messageNumber": number, "body": body})
        self._record.messages[place][number] = Message(self.email, body, True)

    def delete(self, place: Place, number: int) -> None:
        self.ask("DELETE", f"{place.path}/messages/{number}", 204)
        self._record.messages[place][number] = None
