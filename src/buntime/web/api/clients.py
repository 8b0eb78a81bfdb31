"""The server's own clients: a page that says how to install them, and the files. They need no key."""

from collections.abc import Callable, Sequence
from http import HTTPStatus

from buntime import look
from buntime.config import Config
from buntime.errors import NotFound
from buntime.web.address import url_of
from buntime.web.api.server import HTML, page_reply
from buntime.web.built_clients import NPM_PACKAGE, WHEEL, ClientFile, are_built
from buntime.web.clients_page import render_clients
from buntime.web.exchange import Exchange, Headers, Reply
from buntime.web.operation import Page

DESCRIBED = {  # name of the operation, summary
    WHEEL: ("getPythonClient", "Get the Python SDK, command line and MCP server as a wheel."),
    NPM_PACKAGE: ("getNpmClient", "Get the TypeScript SDK as an npm package."),
}


def pages(files: Sequence[ClientFile], config: Config) -> tuple[Page, ...]:
    def page(exchange: Exchange) -> Reply:
        _require(are_built(files))
        return page_reply(render_clients(url_of(exchange, config), files), look.SCRIPT_POLICY)

    return (
        Page("/clients/", page, "Show how to install this server's clients.", HTML.decode(), errors=(NotFound,)),
        *(_page_of(file) for file in files),
    )


def _page_of(file: ClientFile) -> Page:
    name, summary = DESCRIBED[file.name]
    return Page(file.path, _giving(file), summary, file.media, errors=(NotFound,), name=name)


def _giving(file: ClientFile) -> Callable[[Exchange], Reply]:
    tag = f'"{file.sha256}"'.encode()
    headers: Headers = [
        (b"etag", tag),
        (b"cache-control", b"no-cache"),  # the next build of the same version is another file
        (b"content-disposition", f"attachment; filename={file.name}".encode()),
        (b"x-content-type-options", b"nosniff"),
    ]

    def give(exchange: Exchange) -> Reply:
        _require(bool(file.content))
        known = {
            one.strip().removeprefix(b"W/") for line in exchange.header(b"if-none-match") for one in line.split(b",")
        }
        if known & {tag, b"*"}:
            return Reply(HTTPStatus.NOT_MODIFIED, b"", headers=headers)
        return Reply(200, file.content, media=file.media.encode(), headers=headers)

    return give


def _require(found: bool) -> None:
    if not found:
        raise NotFound("This server has no clients to hand out. Run scripts/clients in its directory and restart it.")
