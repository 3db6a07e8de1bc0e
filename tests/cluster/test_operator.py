"""An operator sees dead letters through the console's API, and sends them again."""

from __future__ import annotations

from contextlib import closing

from hubbub.chat.model import ChatKey
from hubbub.cluster.protocol import Delivery, Post, encode
from hubbub.loadtest.cluster import ClusterStack
from tests.cluster.test_dead_letters import send_raw
from tests.conftest import Person, eventually
from tests.http.test_registration import operators


def test_an_operator_sees_dead_letters_and_sends_them_again(cluster: ClusterStack) -> None:
    with closing(Person(cluster.url)) as operator, closing(Person(cluster.url)) as ann:
        operators("add", operator.email, settings=cluster.settings)
        assert operator.get("/auth/me").json()["user"]["operator"] is True
        assert "operator" not in ann.get("/auth/me").json()["user"]
        for method, path in (("GET", "/operator"), ("GET", "/operator/dead"), ("POST", "/operator/retry")):
            assert ann.request(method, path, json={"number": 1} if method == "POST" else None).status_code == 403
        chat = ann.chat()
        token = chat.split("/")[2]
        ann.post(f"{chat}/messages", json={"body": "one"})
        taken = Post(ChatKey(token, 1), 1, 1, "A", "a number that is taken", 1)
        send_raw(cluster, token, encode(Delivery("operator", 1, [taken])))
        eventually(lambda: operator.get("/operator").json()["figures"]["hubbub_dead_letters"] == 1, 30)
        (letter,) = operator.get("/operator/dead").json()
        assert letter["what"] == "PostMessage"
        assert "Duplicate entry" in letter["reason"]
        assert "a number that is taken" not in str(letter), "a message's text is its members' alone"
        assert operator.post("/operator/retry", json={"number": letter["number"] + 1}).status_code == 404
        ann.delete(f"{chat}/messages/1")
        eventually(lambda: bool(ann.get(chat).json()["messagesCount"] == 0))
        assert operator.post("/operator/retry", json={"number": letter["number"]}).status_code == 200
        eventually(lambda: bool(ann.get(chat).json()["messagesCount"] == 1))
        assert operator.get("/operator/dead").json() == []
