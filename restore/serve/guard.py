"""ASGI middleware: token, host and origin of every request, and the size of its body."""

from __future__ import annotations

import asyncio
import hmac
import time
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from restore.serve import LOCAL_NAMES
from restore.serve.limits import Limits, Refused
from restore.serve.metrics import Metrics

COOKIE = "restore_token"
OPEN = ("/healthz",)
DISCARDING = 10.0  # seconds for which the rest of a body that is too large is read
HEADERS = {
    # Everything the page needs comes from this server.
    b"content-security-policy": b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:;"
    b" connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-resource-policy": b"same-origin",
}


@dataclass(frozen=True)
class Access:
    """Who may ask.

    Attributes:
        token: what a client has to know; None: nothing.
        names: names by which this server may be called; None: any. A page elsewhere whose name leads here would
            otherwise pass for one of ours (DNS rebinding).
    """

    token: str | None = None
    names: frozenset[str] | None = LOCAL_NAMES


class Guard:
    """ASGI middleware: refuses requests by `Access` and `Limits`, adds security headers, counts answers.

    Args:
        app: what it guards.
        access: who may ask.
        limits: how much may be sent.
        metrics: where answers are counted.
    """

    def __init__(self, app: ASGIApp, access: Access, limits: Limits, metrics: Metrics) -> None:
        self._app, self._access, self._limits, self._metrics = app, access, limits, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.perf_counter(), 500

        body = _Body(receive, self._limits.max_bytes)

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                present = {name for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *((name, value) for name, value in HEADERS.items() if name not in present),
                ]
            elif status == 413 and not body.ended:
                await send({**message, "more_body": True})
                await body.discard()
                message = {"type": "http.response.body"}
            await send(message)

        try:
            await self._answer(Request(scope))(scope, body.receive, counted)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.answered(scope["method"], route, status, time.perf_counter() - start)

    def _answer(self, request: Request) -> ASGIApp:
        """What answers a request: the application, a refusal, or a page that lets the browser keep the token."""
        token, given = self._access.token, request.query_params.get("token")
        try:
            self._check(request)
        except Refused as refused:
            response = problem(refused)
            if refused.status_code == 413:  # what is still left of the body is not read
                response.headers["connection"] = "close"
            return response
        if token is None or request["path"] != "/" or not given:
            return self._app
        page = RedirectResponse("/", 303)  # the address does not keep it
        page.set_cookie(COOKIE, token, httponly=True, samesite="strict")
        return page

    def _check(self, request: Request) -> None:
        headers, host = request.headers, request.headers.get("host", "")
        if self._access.names is not None and _name(host) not in self._access.names:
            raise Refused(403, "this server answers to localhost only; --host makes it reachable by other names")
        origin = headers.get("origin")
        foreign = origin is not None and origin.partition("://")[2] != host
        if foreign or headers.get("sec-fetch-site") == "cross-site":
            raise Refused(403, "pages of other servers may not ask here")
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > self._limits.max_bytes:
            raise Refused(413, _too_much(self._limits.max_bytes))
        token = self._access.token
        if token is not None and request["path"] not in OPEN and not _knows(token, request):
            raise Refused(401, "send 'Authorization: Bearer TOKEN', or open the page with ?token=TOKEN")


class _Body:
    """What a client sends, of which so many bytes are taken."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive, self._limit, self._read, self.ended = receive, limit, 0, False

    async def receive(self) -> Message:
        """The next part. Raises Refused (413)."""
        message = await self._next()
        if self._read > self._limit:
            raise Refused(413, _too_much(self._limit))
        return message

    async def discard(self) -> None:
        """Reads on for a while: most clients do not look at an answer before they have sent everything."""
        with suppress(TimeoutError, asyncio.TimeoutError):
            await asyncio.wait_for(self._rest(), DISCARDING)

    async def _rest(self) -> None:
        while not self.ended:
            await self._next()

    async def _next(self) -> Message:
        message = await self._receive()
        self._read += len(message.get("body", b""))
        self.ended = not message.get("more_body", False)
        return message


def _too_much(limit: int) -> str:
    return f"more than the {limit / 1e6:.0f} MB that are taken"


def problem(refused: HTTPException) -> JSONResponse:
    """The answer to a request that is not served."""
    return JSONResponse(
        {"status": refused.status_code, "detail": refused.detail}, refused.status_code, dict(refused.headers or {})
    )


def _name(host: str) -> str:
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def _knows(token: str, request: Request) -> bool:
    kind, _, bearer = request.headers.get("authorization", "").partition(" ")
    given = [bearer.strip() if kind.lower() == "bearer" else "", request.cookies.get(COOKIE, "")]
    if request["path"] == "/":
        given.append(request.query_params.get("token", ""))
    return any(hmac.compare_digest(one.encode(), token.encode()) for one in given)
