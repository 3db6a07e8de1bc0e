"""The index of a cluster: OpenSearch or Elasticsearch, each through its own client.

A document has a message's grams and its place; chat.ranking does the rest, as with every index. Documents are routed by
their application's token. A document's version rises with every edit, so that a late or repeated delivery never
replaces a newer one. When an index has grown large, a new one takes its place for writes, and the old one is kept
(roll-over). An edit goes to the new index, and deletes the message from the old ones, as a delete does: otherwise
outdated documents would take the place of current ones.

Names: all processes read and write through the alias ``hubbub-messages``. While a rebuild runs, the index that it fills
has the alias ``hubbub-messages-next``, and changes go to both. The aliases may change between a check and a write. So a
write to an alias that does not exist fails (``require_alias``), and the writer checks the aliases again.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from hubbub.chat.errors import Unavailable
from hubbub.chat.model import ChatKey
from hubbub.chat.ports import Candidates, Document
from hubbub.chat.search import CANDIDATES, Query, grams, spaced, wanted

log = logging.getLogger("hubbub.search")

ALIAS = "hubbub-messages"
NEXT = f"{ALIAS}-next"
_ASK_S = 5.0
_SEARCHING_MS = 1000  # after this time the server returns what it has found so far
_BULK_S = 30.0
_ASKED_STILL_S = 2.0
_BULK_BYTES = 5 * 1024 * 1024
_TAKEN_OUT = 300  # documents at a time: less than _LEAST_BULK_BYTES
_LEAST_BULK_BYTES = 64 * 1024
_LOOKS = 5  # how often a write checks the aliases before it gives up
_OURS = re.compile(f"{ALIAS}(-next|-([0-9]+-)?[0-9]{{6}})?")
_OF_ONE_DOCUMENT = ("mapper_parsing_exception", "document_parsing_exception")
_ROLL_OVER = {"conditions": {"max_docs": 50_000_000, "max_size": "30gb", "max_age": "90d"}}
_ROLL_OVER_EVERY_S = 600.0
_TEMPLATE = {
    "index_patterns": [f"{ALIAS}-*"],
    "template": {
        "settings": {
            "number_of_shards": 2,
            "auto_expand_replicas": "0-1",
            "refresh_interval": "1s",
            # So long a text that was sent before its message was deleted may come after that, and is refused.
            "gc_deletes": "10m",
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
_encode = msgspec.json.Encoder().encode


class Refused(Exception):
    """The search server answered with an error; ``status`` is HTTP's."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(f"status {status}: {why}")
        self.status = status


class _Moved(Exception):
    """The alias no longer exists."""


class _Entry(NamedTuple):
    """A document, and its lines in a bulk request."""

    document: Document
    lines: bytes


def connect(url: str) -> Request:
    """A function that sends a request (method, path, body, seconds) to the server at ``url``, through its own client.

    On first use, Elasticsearch's client checks the product that the server reports. If it is another product,
    OpenSearch's client is used. Requests raise Unavailable, or Refused.
    """
    from elasticsearch import UnsupportedProductError

    for chatty in ("opensearch", "elastic_transport", "elasticsearch"):  # they log every request, with tokens
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
            headers["content-type"] = "application/x-ndjson" if isinstance(body, bytes) else "application/json"
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
        self._ask = request
        self._there = False
        self._made = ""
        self._bulk_bytes = _BULK_BYTES
        self._rolled_at = time.monotonic()

    def _request(self, method: str, path: str, body: Any = None, *, within_s: float = _ASK_S) -> Any:
        try:
            return self._ask(method, path, body, within_s)
        except Refused as error:
            if error.status in (429, 503):
                raise Unavailable("The search server is overloaded, or not ready.", retry_after=5) from error
            raise

    def _ensure(self) -> None:
        """Create the template and a first index, if they don't exist yet."""
        if self._there:
            return
        self._request("PUT", f"/_index_template/{ALIAS}", _TEMPLATE)
        aliases = {ALIAS: {"is_write_index": True}}
        if not self._aliased(ALIAS):
            self._make(f"{ALIAS}-000001", aliases)
        if not self._aliased(ALIAS):  # an index of that name exists without the alias
            self._make(_new_name(), aliases)
        self._there = True

    def _make(self, index: str, aliases: dict[str, Any]) -> None:
        try:
            self._request("PUT", f"/{index}", {"aliases": aliases}, within_s=_BULK_S)
        except Refused as error:
            if "already_exists" not in str(error):  # else another process was first
                raise

    def _aliased(self, alias: str) -> list[str]:
        """The indices that have the alias."""
        try:
            return sorted(self._request("GET", f"/_alias/{alias}"))
        except Refused as error:
            if error.status == 404:
                return []
            raise

    def _remove(self, index: str) -> None:
        try:
            self._request("DELETE", f"/{index}", within_s=_BULK_S)
        except Refused as error:
            if error.status != 404:
                raise

    def add(self, documents: Sequence[Document]) -> None:
        """Add or remove messages. When this returns, all of them are done, except documents that the server refuses
        because of their content: these are named in the log.
        """
        self._add_where_it_belongs(documents)
        if time.monotonic() - self._rolled_at > _ROLL_OVER_EVERY_S:
            self._rolled_at = time.monotonic()
            self._request("POST", f"/{ALIAS}/_rollover", _ROLL_OVER, within_s=_BULK_S)

    def _add_where_it_belongs(self, documents: Sequence[Document]) -> None:
        changed = [document for document in documents if document.edited or document.body is None]
        for _ in range(_LOOKS):
            self._ensure()
            try:
                if changed:
                    self._take_out(changed)
                for target in (ALIAS, *([NEXT] if self._aliased(NEXT) else [])):
                    self._bulk(target, documents)
            except _Moved:
                self._there = False
            else:
                return
        raise Unavailable("The search server's aliases keep changing.", retry_after=5)

    def _take_out(self, documents: Sequence[Document]) -> None:
        """Delete documents from the indices that are no longer written to. This comes before the new texts are written:
        an index may become one of these at any time, and a text that was just written to it must stay. Raises _Moved
        like ``_bulk``.
        """
        try:
            described = self._request("GET", f"/{ALIAS}/_alias/{ALIAS}")
        except Refused as error:
            if error.status == 404:
                raise _Moved from error
            raise
        old = [index for index, each in described.items() if not each["aliases"][ALIAS].get("is_write_index")]
        for index in old:
            for at in range(0, len(documents), _TAKEN_OUT):
                lines = b"".join(
                    _encode({"delete": {"_index": index, **_where(each)}}) + b"\n"
                    for each in documents[at : at + _TAKEN_OUT]
                )
                answer = self._request("POST", "/_bulk", lines, within_s=_BULK_S)
                refused = [item["delete"] for item in answer["items"] if item["delete"]["status"] not in (200, 404)]
                if refused:
                    raise Unavailable(f"The search server did not delete {len(refused)} documents: {refused[0]}.")

    def _bulk(self, target: str, documents: Sequence[Document]) -> None:
        """Write documents in requests of limited size. Raises _Moved when the alias does not exist."""
        entries: list[_Entry] = []
        size = 0
        for document in documents:
            entry = _entry(document)
            if entries and size + len(entry.lines) > self._bulk_bytes:
                self._send(target, entries)
                entries, size = [], 0
            entries.append(entry)
            size += len(entry.lines)
        if entries:
            self._send(target, entries)

    def _send(self, target: str, entries: Sequence[_Entry]) -> None:
        body = b"".join(entry.lines for entry in entries)
        try:
            answer = self._request("POST", f"/{target}/_bulk?require_alias=true", body, within_s=_BULK_S)
        except Refused as error:
            if error.status != 413:
                raise
            if len(entries) == 1:
                _leave_out(entries[0].document, "it is too large for the server")
                return
            self._bulk_bytes = max(_LEAST_BULK_BYTES, min(self._bulk_bytes, len(body)) // 2)
            del body
            half = len(entries) // 2
            self._send(target, entries[:half])
            self._send(target, entries[half:])
            return
        if answer["errors"]:
            self._judge(entries, [result for item in answer["items"] for result in item.values()])

    @staticmethod
    def _judge(entries: Sequence[_Entry], results: Sequence[dict[str, Any]]) -> None:
        """Check the result of each entry. Raises _Moved, or Unavailable for an error that does not come from a single
        document."""
        # 404 without an error: the document to delete does not exist; 409: a newer version is already there.
        wrong = [
            (entry.document, result)
            for entry, result in zip(entries, results, strict=True)
            if "error" in result and result["status"] != 409
        ]
        kinds = {result["error"]["type"] for _, result in wrong}
        if "index_not_found_exception" in kinds:
            raise _Moved
        # If the index accepts others and not this one, it refuses it because of its content.
        takes = any(result["status"] < 300 for result in results)
        for _, result in wrong:
            if not (result["status"] == 400 and (takes or result["error"]["type"] in _OF_ONE_DOCUMENT)):
                raise Unavailable(f"The search server refused {len(wrong)} documents: {result['error']}.")
        for document, result in wrong:
            _leave_out(document, str(result["error"]["type"]))

    async def candidates(
        self, chat: ChatKey, query: Query, *, typos: bool, limit: int = CANDIDATES, below: int | None = None
    ) -> Candidates:
        try:
            return await asyncio.to_thread(self._find, chat, query, typos, limit, below)
        except Refused as error:
            log.error("The search server can't search: %s", error)
            raise Unavailable("The search server can't search now.", retry_after=5) from error

    def _find(self, chat: ChatKey, query: Query, typos: bool, limit: int, below: int | None) -> Candidates:
        self._ensure()
        where: list[dict[str, Any]] = [{"term": {"token": chat.token}}, {"term": {"chat": chat.number}}]
        if below is not None:
            where.append({"range": {"number": {"lt": below}}})
        clauses = [_clause(ways) for ways in wanted(query, typos=typos)]
        body = {
            "query": {"bool": {"filter": where + clauses}},
            "sort": [{"number": "desc"}],
            "size": limit,
            "track_total_hits": False,
            "timeout": f"{_SEARCHING_MS}ms",
        }
        answer = self._request("POST", f"/{ALIAS}/_search?routing={chat.token}", body)
        numbers = list(dict.fromkeys(hit["sort"][0] for hit in answer["hits"]["hits"]))
        return Candidates(numbers, whole=not answer["timed_out"])

    # Rebuilding ------------------------------------------------------------------------------------------------------

    def start_anew(self) -> None:
        """Create an empty index beside the one in use; from now on ``add``, in every process, writes to both. Another
        rebuild in progress can no longer be finished.
        """
        self._clear()
        self._ensure()
        self.give_up()
        self._made = _new_name()
        self._make(self._made, {NEXT: {}})

    def _clear(self) -> None:
        """Remove our indices without an alias: a killed rebuild leaves one. An index that has the name of an alias,
        which writes of version 0.1.0 could create, would prevent that alias for ever.
        """
        for index, described in self._request("GET", f"/{ALIAS}*/_alias").items():
            if not described["aliases"] and _OURS.fullmatch(index):
                log.warning("The index %s, which no alias uses, is removed.", index)
                self._there = False
                self._remove(index)

    def fill(self, documents: Sequence[Document]) -> None:
        """Write documents to the new index only."""
        try:
            self._bulk(NEXT, documents)
        except _Moved as error:
            raise Unavailable("The new index is gone: another rebuild was started or has finished.") from error

    def adopt(self) -> None:
        """Replace the old index with the new one, in one step, and then remove the old one."""
        self._request("POST", "/_refresh", within_s=_BULK_S)
        for looked in range(_LOOKS):
            old, new = self._aliased(ALIAS), self._aliased(NEXT)
            if new != [self._made]:
                raise Unavailable("The new index is not the one that was filled: another rebuild was started.")
            actions: list[dict[str, Any]] = [{"remove": {"index": index, "alias": ALIAS}} for index in old]
            actions += [{"remove": {"index": self._made, "alias": NEXT}}]
            actions += [{"add": {"index": self._made, "alias": ALIAS, "is_write_index": True}}]
            try:
                self._request("POST", "/_aliases", {"actions": actions}, within_s=_BULK_S)
                break
            except Refused:  # the old one has rolled over since
                if looked == _LOOKS - 1:
                    raise
        time.sleep(_ASKED_STILL_S)  # let searches that have begun in the old one finish
        for index in old:
            self._remove(index)

    def give_up(self) -> None:
        """Remove the new index of an unfinished rebuild."""
        for index in self._aliased(NEXT):
            self._remove(index)


def _new_name() -> str:
    """A new index name. It ends in six digits, which a roll-over increments."""
    return f"{ALIAS}-{time.time_ns() // 1_000_000}-000001"


def _entry(document: Document) -> _Entry:
    token, chat = document.chat
    where = _where(document) | {"version": document.version, "version_type": "external_gte"}
    if document.body is None:
        return _Entry(document, _encode({"delete": where}) + b"\n")
    kept = " ".join(gram.replace(" ", "_") for gram in grams(spaced(document.body)))
    source = {"token": token, "chat": chat, "number": document.number, "grams": kept}
    return _Entry(document, _encode({"index": where}) + b"\n" + _encode(source) + b"\n")


def _where(document: Document) -> dict[str, Any]:
    token, chat = document.chat
    return {"_id": f"{token}.{chat}.{document.number}", "routing": token}


def _leave_out(document: Document, why: str) -> None:
    """Log a document that is left out, with only the start of its token: a reader of the log must not get the token."""
    log.error(
        "Message %d of chat %d of application %s… can't be indexed, and a search will not find it: %s.",
        document.number,
        document.chat.number,
        document.chat.token[:4],
        why,
    )


def _clause(ways: list[list[str]]) -> dict[str, Any]:
    found = [{"bool": {"filter": [{"term": {"grams": gram.replace(" ", "_")}} for gram in way]}} for way in ways]
    return {"bool": {"should": found, "minimum_should_match": 1}}
