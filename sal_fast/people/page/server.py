"""The page over HTTP: who may come in, and one function for each address."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import secrets
import socket
from collections.abc import Callable, Mapping
from importlib.resources import files as resources
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

from markdown_it import MarkdownIt
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from sal_fast._util.files import stamp
from sal_fast._util.locks import InUse
from sal_fast.data import files
from sal_fast.errors import InputError
from sal_fast.people.page import desk as desks
from sal_fast.people.page import runs
from sal_fast.people.page.desk import AskBack, Gone
from sal_fast.people.page.rule import Rules
from sal_fast.people.page.session import Session

STATIC = resources("sal_fast.people.page") / "static"
KINDS = {".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
PICTURES = {".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".webp": "image/webp"}
MOST_BYTES = 64 * 2**20  # of a request
POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; style-src 'self'; frame-ancestors 'none'; "
    "base-uri 'none'; form-action 'self'"
)
REPORT_POLICY = POLICY.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'")
LOCKED = (
    "This page asks for the secret in its address. Open the address that `sal-fast label` has printed; it "
    "ends with ?token=... and a few letters."
)


def application(session: Session, rules: Rules, token: str, host: str) -> Starlette:
    """The page of a session. `token` is the secret in its address. It listens on `host`."""
    pages = _Pages(session, rules)
    get = {
        "/": pages.index,
        "/static/{name}": pages.static,
        "/instructions": pages.instructions,
        "/instructions/{path:path}": pages.instruction_file,
        "/report/{path:path}": pages.report,
        "/picture/{key}": pages.picture,
        "/api/state": pages.state,
        "/api/open/{key}": pages.open,
        "/api/mine": pages.mine,
        "/api/ties": pages.ties,
    }
    post = {
        "/api/take": pages.take,
        "/api/release": pages.release,
        "/api/draft/{key}": pages.draft,
        "/api/answer/{key}": pages.answer,
        "/api/withdraw/{key}": pages.withdraw,
        "/api/rule/{key}": pages.rule,
        "/api/classes": pages.classes,
    }
    routes = [Route(path, _in_thread(work), methods=["GET"]) for path, work in get.items()]
    routes += [Route(path, _in_thread(work), methods=["POST"]) for path, work in post.items()]
    return Starlette(
        routes=routes,
        middleware=[
            Middleware(Door, token=token, host=host),
            Middleware(GZipMiddleware, minimum_size=2000),
        ],
        exception_handlers={
            AskBack: lambda request, error: _error(409, error, ask=error.kind),
            Gone: lambda request, error: _error(410, error),
            # an import, say, writes to the run now; the browser keeps the answer and sends it again
            InUse: lambda request, error: _error(503, error),
            InputError: lambda request, error: _error(400, error),
            files.Unreadable: lambda request, error: _error(400, error),
            OSError: lambda request, error: _error(500, f"This cannot be kept or read: {error}"),
        },
    )


class Door:
    """Lets in requests with the secret, from this page alone.

    The secret comes once in the address, and then in a cookie that other sites cannot send. A request has to
    name this machine as its host, by number or by name, so that no other site's name can be pointed at it.
    A request that changes anything has to come from a page of the same origin.
    """

    def __init__(self, app: ASGIApp, token: str, host: str) -> None:
        self.app, self.token = app, token
        self.names = {"localhost", host.casefold(), socket.gethostname().casefold()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or turn it away."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        response = self._refusal(request)
        if response is None:
            await self.app(scope, receive, _with_headers(send, request.url.path))
        else:
            await response(scope, receive, send)

    def _refusal(self, request: Request) -> Response | None:
        host = request.headers.get("host", "")
        port = self._port_here(host)
        if port is None:
            return PlainTextResponse("This host's name is not the page's.", 421)
        cookie = f"sal_fast_{port}"
        given = request.query_params.get("token")
        if request.method == "GET" and request.url.path == "/" and given is not None:
            if not secrets.compare_digest(given.encode(), self.token.encode()):
                return PlainTextResponse(LOCKED, 403)
            response = RedirectResponse("/", 303)
            response.set_cookie(
                cookie, self.token, max_age=30 * 86400, httponly=True, samesite="strict", path="/"
            )
            return response
        known = request.cookies.get(cookie, "")
        if not secrets.compare_digest(known.encode(), self.token.encode()):
            return PlainTextResponse(LOCKED, 403)
        if request.method not in ("GET", "HEAD"):
            scheme, _, place = request.headers.get("origin", "").partition("://")
            if scheme not in ("http", "https") or place.casefold() != host.casefold():
                return PlainTextResponse("Only the page itself may change answers.", 403)
        return None

    def _port_here(self, host: str) -> int | None:
        """The port that a request names together with this machine; None if it names another host."""
        try:
            parts = urlsplit("//" + host)
            name, port = parts.hostname or "", parts.port or 80
        except ValueError:  # brackets that do not close, or a port that is no number
            return None
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return port if name.casefold() in self.names else None
        return port


class _Pages:
    """One method for each address. Each gets the request and its body, an object."""

    def __init__(self, session: Session, rules: Rules) -> None:
        self.session, self.rules = session, rules

    # --- pages and pictures ------------------------------------------------------------------------------

    def index(self, request: Request, says: Mapping[str, Any]) -> Response:
        return _static("index.html")

    def static(self, request: Request, says: Mapping[str, Any]) -> Response:
        return _static(request.path_params["name"])

    def instructions(self, request: Request, says: Mapping[str, Any]) -> Response:
        file = self.session.folder / "instructions.md"
        text = file.read_text(encoding="utf-8-sig", errors="replace") if file.exists() else ""
        return HTMLResponse(_markdown(text))

    def instruction_file(self, request: Request, says: Mapping[str, Any]) -> Response:
        return _file(self.session.folder, request.path_params["path"], PICTURES)

    def report(self, request: Request, says: Mapping[str, Any]) -> Response:
        kinds = {**KINDS, **PICTURES, ".csv": "text/csv"}
        return _file(self.session.run / "report", request.path_params["path"] or "index.html", kinds)

    def picture(self, request: Request, says: Mapping[str, Any]) -> Response:
        desk = self.session.desk
        if desk is None:
            raise Gone("no picture is asked about now")
        path = desk.path(request.path_params["key"])
        # the browser asks each time whether it still has the right one: a run that is made anew has the same
        # addresses, perhaps for other pictures
        mark = hashlib.blake2b(stamp(path).encode(errors="surrogateescape"), digest_size=16).hexdigest()
        keep = {"Cache-Control": "private, no-cache", "ETag": f'"{mark}"'}
        if request.headers.get("if-none-match", "").removeprefix("W/") == keep["ETag"]:
            return Response(status_code=304, headers=keep)
        data, suffix = desks.shown(path, mark)
        return Response(data, media_type=PICTURES[suffix], headers=keep)

    # --- what is asked -----------------------------------------------------------------------------------

    def state(self, request: Request, says: Mapping[str, Any]) -> Any:
        return self.session.state(request.query_params.get("person", ""))

    def open(self, request: Request, says: Mapping[str, Any]) -> Any:
        desk, person = self._asked(request)
        return desk.picture(person, request.path_params["key"])

    def mine(self, request: Request, says: Mapping[str, Any]) -> Any:
        desk, person = self._asked(request)
        return {"answers": desk.mine(person)}

    def ties(self, request: Request, says: Mapping[str, Any]) -> Any:
        return {"ties": self._asked(request)[0].ties()}

    def take(self, request: Request, says: Mapping[str, Any]) -> Any:
        desk = self.session.asking(says.get("query"))
        count = says.get("count", 2)
        if type(count) is not int:
            raise InputError("count: expected a whole number of pictures; load the page again")
        return {"pictures": desk.take(_person(says), max(1, min(count, 4)), _texts(says, "held"))}

    def release(self, request: Request, says: Mapping[str, Any]) -> Any:
        self.session.asking(says.get("query")).release(_person(says), _texts(says, "keys"))
        return {}

    # --- what is answered --------------------------------------------------------------------------------

    def draft(self, request: Request, says: Mapping[str, Any]) -> Any:
        self.session.asking(says.get("query")).draft(_person(says), request.path_params["key"], says)
        return {}

    def answer(self, request: Request, says: Mapping[str, Any]) -> Any:
        key = request.path_params["key"]
        return {"counts": self.session.answer(says.get("query"), _person(says), key, says)}

    def withdraw(self, request: Request, says: Mapping[str, Any]) -> Any:
        key = request.path_params["key"]
        return {"counts": self.session.withdraw(says.get("query"), _person(says), key)}

    def rule(self, request: Request, says: Mapping[str, Any]) -> Any:
        desk = self.session.asking(says.get("query"))
        name = desk.id_of(request.path_params["key"])
        small = desk.small(name, says.get("label"))
        return {"runs": runs.encode(self.rules.made(desk.path(request.path_params["key"]), small, says))}

    def classes(self, request: Request, says: Mapping[str, Any]) -> Any:
        return {"classes": self.session.add_classes(_texts(says, "names"))}

    def _asked(self, request: Request) -> tuple[desks.Desk, str]:
        query = request.query_params.get("query", "")
        # a longer text is no number of a query, and Python would refuse to read a very long one
        number = int(query) if query.removeprefix("-").isdecimal() and len(query) < 10 else None
        return self.session.asking(number), request.query_params.get("person", "")


def _in_thread(work: Callable[[Request, Mapping[str, Any]], Any]) -> Callable[[Request], Any]:
    """Let a method answer in a thread, because it reads and writes files."""

    async def answer(request: Request) -> Response:
        says: Any = {}
        if request.method == "POST":
            body = bytearray()
            async for part in request.stream():
                body += part
                if len(body) > MOST_BYTES:
                    return PlainTextResponse("This is too much for one answer.", 413)
            try:
                says = json.loads(body, parse_constant=_no_number)
                if b"\\ud" in body.lower():  # half a letter, as \ud800, could not be written down
                    json.dumps(says, ensure_ascii=False).encode()
            except (ValueError, RecursionError):
                says = None
            if not isinstance(says, dict):
                return _error(400, "expected a JSON object")
        made = await run_in_threadpool(work, request, says)
        return made if isinstance(made, Response) else JSONResponse(made)

    return answer


def _with_headers(send: Send, path: str) -> Send:
    policy = REPORT_POLICY if path.startswith("/report/") else POLICY
    extra = [
        (b"content-security-policy", policy.encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
        (b"cross-origin-resource-policy", b"same-origin"),
    ]

    async def sends(message: Any) -> None:
        if message["type"] == "http.response.start":
            names = {name for name, _ in message["headers"]}
            kept = [] if b"cache-control" in names else [(b"cache-control", b"no-store")]
            message["headers"] = [*message["headers"], *extra, *kept]
        await send(message)

    return sends


def _person(says: Mapping[str, Any]) -> str:
    person = says.get("person")
    if not isinstance(person, str):
        raise InputError("type your name first")
    desks.named(person)
    return person


def _no_number(name: str) -> float:
    raise ValueError(name)  # NaN and Infinity are no JSON, and the browser could not read them again


def _texts(says: Mapping[str, Any], name: str) -> list[str]:
    """A list of texts that the page has sent. Raises InputError for anything else."""
    texts = says.get(name) or []
    if not isinstance(texts, list) or not all(isinstance(one, str) for one in texts):
        raise InputError(f"{name}: expected a list of texts; load the page again")
    return texts


def _static(name: str) -> Response:
    kind = KINDS.get(Path(name).suffix)
    if kind is None or name not in {file.name for file in STATIC.iterdir()}:
        return PlainTextResponse("There is no such page.", 404)
    return Response((STATIC / name).read_bytes(), media_type=kind)


def _file(folder: Path, path: str, kinds: Mapping[str, str]) -> Response:
    """A file below a folder. No path leads out of it, by dots or by links."""
    root = folder.resolve()
    try:
        file = (root / path).resolve()
        kind = kinds.get(file.suffix.lower())
        data = file.read_bytes() if file.is_relative_to(root) and kind is not None else None
    except (OSError, ValueError, RuntimeError):  # none there, a NUL in its name, links in a circle
        data = None
    if data is None:
        return PlainTextResponse("There is no such file.", 404)
    return Response(data, media_type=kind)


def _markdown(text: str) -> str:
    """Instructions as HTML. Tags in the text are shown as they are typed, and its pictures lie beside it."""
    made = MarkdownIt("commonmark", {"html": False}).enable("table")
    blocks = made.parse(text)
    for part in (part for block in blocks for part in block.children or ()):
        if part.type == "image":
            part.attrSet("src", urljoin("/instructions/", str(part.attrGet("src"))))
    return str(made.renderer.render(blocks, made.options, {}))


def _error(status: int, error: object, **more: str) -> JSONResponse:
    return JSONResponse({"error": str(error), **more}, status)
