"""The pages that a browser shows: the console, the reference, the pages that links lead to, and their files."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from hubbub.console import Console
from hubbub.http.document import Document
from hubbub.http.problems import problem
from hubbub.http.routing import response, route


class PageRoutes:
    """The routes of pages. They are not in the API's document."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._index = self._document("index.html")
        self._link = self._document("link.html")
        self._reference = self._document("docs.html")

    def _document(self, name: str) -> Document:
        page = self._console.page(name)
        return Document(page.content, page.kind, page.headers)

    @route("GET", "/", guarded=False)
    async def console(self, request: Request) -> Response:
        return self._index.answer(request)

    @route("GET", "/setup", guarded=False)
    async def setup(self, request: Request) -> Response:
        return self._link.answer(request)

    @route("GET", "/invite", guarded=False)
    async def invite(self, request: Request) -> Response:
        return self._link.answer(request)

    @route("GET", "/reset", guarded=False)
    async def reset(self, request: Request) -> Response:
        return self._link.answer(request)

    @route("GET", "/docs", guarded=False)
    async def docs(self, request: Request) -> Response:
        return self._reference.answer(request)

    @route("GET", "/static/{name:path}", guarded=False)
    async def static(self, request: Request) -> Response:
        file = self._console.file(request.path_params["name"])
        if file is None:
            return response(problem(404, "There is no such file; reload the page."))
        return Response(file.content, media_type=file.kind, headers=file.headers)
