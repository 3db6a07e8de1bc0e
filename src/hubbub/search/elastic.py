"""The index of a cluster: OpenSearch or Elasticsearch, each through its own client.

A document is a message's grams and where the message is; chat.search does the rest, as with every index. Documents are
routed by their application's token. A document's version is when its text was written, so that a late or repeated
delivery never replaces a newer one. Old indices are kept beside the new one when it has grown large (roll-over), and
an edit then has a document in both: candidates are looked at before anyone is shown them, and named once.

Names: everybody reads and writes by the alias ``hubbub-messages``. While a rebuild runs, what it fills has the alias
``hubbub-messages-next``, and changes go to both.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from hubbub.chat.errors import Unavailable
from hubbub.chat.model import ChatKey
from hubbub.chat.ports import Document
from hubbub.chat.search import CANDIDATES, TYPO_CANDIDATES, Query, Term, grams, some, spaced

log = logging.getLogger("hubbub.search")

ALIAS = "hubbub-messages"
NEXT = f"{ALIAS}-next"
_ASK_S = 5.0
_BULK_S = 30.0
_ASKED_STILL_S = 2.0
_ROLL_OVER = {"conditions": {"max_docs": 50_000_000, "max_size": "30gb", "max_age": "90d"}}
_ROLL_OVER_EVERY_S = 600.0
_TEMPLATE = {
    "index_patterns": [f"{ALIAS}-*"],
    "template": {
        "settings": {
            "number_of_shards": 2,
            "auto_expand_replicas": "0-1",
            "refresh_interval": "1s",
        },
        "mappings": {
            "dynamic": "strict",
            "_source": {"enabled": False},
            "_routing": {"required": True},
            "properties": {
                "token": {"type": "keyword", "norms": False},
                "chat": {"type": "long"},
                "number": {"type": "long"},
                "grams": {"type": "text", "analyzer": "whitespace", "index_options": "docs", "norms": False},
            },
        },
    },
}

Request = Callable[[str, str, Any, float], Any]


class Refused(Exception):
    """The search server answered with an error; ``status`` is HTTP's."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(f"status {status}: {why}")
        self.status = status


def connect(url: str) -> Request:
    """How to send a request (method, path, body, seconds) to the server at ``url``, by the client made for it.

    At the first use Elasticsearch's client looks at what the server says that it is, and where that is something else,
    OpenSearch's is taken. Requests raise Unavailable, or Refused.
    """
    from elasticsearch import UnsupportedProductError

    for chatty in ("opensearch", "elastic_transport", "elasticsearch"):  # they tell of every request, tokens included
        logging.getLogger(chatty).setLevel(logging.CRITICAL)
    client: Request | None = None

    def request(method: str, path: str, body: Any, within_s: float) -> Any:
        nonlocal client
        if client is None:
            client = _elasticsearch(url)
            try:
                client("GET", "/_cluster/health", None, _ASK_S)
            except UnsupportedProductError:
                client = _opensearch(url)
            except Unavailable:
                client = None
                raise
        return client(method, path, body, within_s)

    return request


def _opensearch(url: str) -> Request:
    from opensearchpy import OpenSearch, exceptions

    client = OpenSearch([url], max_retries=0)

    def request(method: str, path: str, body: Any, within_s: float) -> Any:
        try:
            return client.transport.perform_request(method, path, body=body, params={"request_timeout": within_s})
        except exceptions.ConnectionError as error:
            raise Unavailable("The search server can't be reached.", retry_after=5) from error
        except exceptions.TransportError as error:
            raise Refused(int(error.status_code), str(error.error)) from error

    return request


def _elasticsearch(url: str) -> Request:
    from elasticsearch import ApiError, Elasticsearch, TransportError, UnsupportedProductError

    client = Elasticsearch(url, max_retries=0)

    def request(method: str, path: str, body: Any, within_s: float) -> Any:
        headers = {"accept": "application/json"}
        if body is not None:
            headers["content-type"] = "application/x-ndjson" if isinstance(body, str) else "application/json"
        try:
            asked = client.options(request_timeout=within_s)
            return asked.perform_request(method, path, headers=headers, body=body).body
        except TransportError as error:
            raise Unavailable("The search server can't be reached.", retry_after=5) from error
        except UnsupportedProductError:
            raise
        except ApiError as error:
            raise Refused(int(error.status_code), str(error.error)) from error

    return request


class ElasticIndex:
    """See chat.ports.SearchIndex. Every method but ``candidates`` blocks, and raises Unavailable."""

    def __init__(self, request: Request) -> None:
        self._send = request
        self._there = False
        self._rolled_at = time.monotonic()

    def _request(self, method: str, path: str, body: Any = None, *, within_s: float = _ASK_S) -> Any:
        try:
            return self._send(method, path, body, within_s)
        except Refused as error:
            if error.status in (429, 503):
                raise Unavailable("The search server is overloaded, or not ready.", retry_after=5) from error
            raise

    def _ensure(self) -> None:
        """The template and a first index, if they are not there yet."""
        if self._there:
            return
        self._request("PUT", f"/_index_template/{ALIAS}", _TEMPLATE)
        if not self._aliased(ALIAS):
            self._make("000001", {ALIAS: {"is_write_index": True}})
        self._there = True

    def _make(self, number: str, aliases: dict[str, Any]) -> None:
        try:
            self._request("PUT", f"/{ALIAS}-{number}", {"aliases": aliases}, within_s=_BULK_S)
        except Refused as error:
            if "already_exists" not in str(error):  # another process was first
                raise

    def _aliased(self, alias: str) -> list[str]:
        """The indices that have the alias."""
        try:
            return sorted(self._request("GET", f"/_alias/{alias}"))
        except Refused as error:
            if error.status == 404:
                return []
            raise

    def add(self, documents: Sequence[Document]) -> None:
        """Take the messages in, or out. All of them are in when this returns."""
        self._ensure()
        targets = [ALIAS, *([NEXT] if self._aliased(NEXT) else [])]
        for target in targets:
            self._bulk(target, documents)
        if time.monotonic() - self._rolled_at > _ROLL_OVER_EVERY_S:
            self._rolled_at = time.monotonic()
            self._request("POST", f"/{ALIAS}/_rollover", _ROLL_OVER, within_s=_BULK_S)

    def _bulk(self, target: str, documents: Sequence[Document]) -> None:
        lines = []
        for document in documents:
            token, chat = document.chat
            where = {"_id": f"{token}.{chat}.{document.number}", "routing": token}
            version = {"version": document.written_at, "version_type": "external_gte"}
            if document.body is None:
                lines.append(json.dumps({"delete": where}))
                continue
            kept = " ".join(gram.replace(" ", "_") for gram in grams(spaced(document.body)))
            lines.append(json.dumps({"index": where | version}))
            lines.append(json.dumps({"token": token, "chat": chat, "number": document.number, "grams": kept}))
        if not lines:
            return
        answer = self._request("POST", f"/{target}/_bulk", "\n".join([*lines, ""]), within_s=_BULK_S)
        if answer["errors"]:
            wrong = [result for item in answer["items"] for result in item.values() if result["status"] >= 400]
            # 404: what is to be deleted was never there; 409: something newer is there already.
            faults = [result for result in wrong if result["status"] not in (404, 409)]
            if faults:
                raise Unavailable(f"The search server refused {len(faults)} documents: {faults[0].get('error')}.")

    async def candidates(self, chat: ChatKey, query: Query, *, typos: bool) -> list[int]:
        try:
            return await asyncio.to_thread(self._find, chat, query, typos)
        except Refused as error:
            log.error("The search server can't search: %s", error)
            raise Unavailable("The search server can't search now.", retry_after=5) from error

    def _find(self, chat: ChatKey, query: Query, typos: bool) -> list[int]:
        self._ensure()
        where = [{"term": {"token": chat.token}}, {"term": {"chat": chat.number}}]
        body = {
            "query": {"bool": {"filter": where + [_clause(term, typos=typos) for term in query.terms]}},
            "sort": [{"number": "desc"}],
            "size": TYPO_CANDIDATES if typos else CANDIDATES,
            "track_total_hits": False,
        }
        answer = self._request("POST", f"/{ALIAS}/_search?routing={chat.token}", body)
        return list(dict.fromkeys(hit["sort"][0] for hit in answer["hits"]["hits"]))

    # Rebuilding ------------------------------------------------------------------------------------------------------

    def start_anew(self) -> None:
        """Make an empty index beside the one in use; from now on ``add``, in every process, goes to both."""
        self._ensure()
        self.give_up()
        # A roll-over counts the number at the end up, which is six digits.
        self._make(f"{time.time_ns() // 1_000_000}-000001", {NEXT: {}})

    def fill(self, documents: Sequence[Document]) -> None:
        """Into the new index alone."""
        self._bulk(NEXT, documents)

    def adopt(self) -> None:
        """Put the new index in the place of the old, in one step, and then remove the old."""
        old, new = self._aliased(ALIAS), self._aliased(NEXT)
        self._request("POST", "/_refresh", within_s=_BULK_S)
        actions: list[dict[str, Any]] = [{"remove": {"index": index, "alias": ALIAS}} for index in old]
        actions += [{"remove": {"index": index, "alias": NEXT}} for index in new]
        actions += [{"add": {"index": index, "alias": ALIAS, "is_write_index": True}} for index in new]
        self._request("POST", "/_aliases", {"actions": actions}, within_s=_BULK_S)
        time.sleep(_ASKED_STILL_S)  # who has begun to search the old one shall finish
        for index in old:
            self._request("DELETE", f"/{index}", within_s=_BULK_S)

    def give_up(self) -> None:
        """Remove what an unfinished rebuild has left."""
        for index in self._aliased(NEXT):
            self._request("DELETE", f"/{index}", within_s=_BULK_S)


def _clause(term: Term, *, typos: bool) -> dict[str, Any]:
    ways = [way for way in (term.sure, *(term.typos if typos else ())) if way]
    found = [{"bool": {"filter": [{"term": {"grams": gram.replace(" ", "_")}} for gram in some(way)]}} for way in ways]
    return {"bool": {"should": found, "minimum_should_match": 1}}
