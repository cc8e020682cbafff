"""What every request passes first: whom it is from, how much and how long it sends."""

import asyncio
import contextlib
import json
import re
import sys
import traceback
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fastfcn_jax.serve import connection
from fastfcn_jax.serve.measures import Measures

FAILED = "the server failed on this request; its terminal shows why"
OWN_SITES = ("none", "same-origin")
UNTIL_SENT = "fastfcn.until_sent"  # key of a scope: what is closed when the reply has been sent
PART_BYTES = 1 << 16  # of a reply; before each the client has to take most of what was sent
LINGER_SECONDS = 2.0  # for what a client still sends; a reply before its end could get lost
CONTENT_SECURITY = (
    "default-src 'none'; img-src 'self' data: blob:; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; connect-src 'self'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": CONTENT_SECURITY,
    "x-content-type-options": "nosniff",
    "cache-control": "no-store",
}


class RefusedError(Exception):
    """A refused request: its HTTP status, and one sentence."""

    def __init__(self, status: int, sentence: str, *, retry_seconds: int = 0):
        super().__init__(sentence)
        self.status, self.sentence, self.retry_seconds = status, sentence, retry_seconds

    @property
    def headers(self) -> dict[str, str]:
        return {"retry-after": str(self.retry_seconds)} if self.retry_seconds else {}


class GoneError(RefusedError):
    """The client has left; nobody reads this reply."""

    def __init__(self):
        super().__init__(499, "the client has left")


class Guard:
    """ASGI middleware around the application.

    Args:
      is_called: whether a request for this host name is meant for this server. Another site could
        point its own name at this machine, and so read what a visitor's browser gets from it.
    """

    def __init__(self, app: ASGIApp, *, is_called: Callable[[str], bool], measures: Measures):
        self._app = app
        self._is_called = is_called
        self._measures = measures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = _Request(scope, receive)
        reply = _Reply(send, request, self._measures)
        async with contextlib.AsyncExitStack() as until_sent:
            scope[UNTIL_SENT] = until_sent
            try:
                self._check(request.headers)
                await self._app(scope, request.receive, reply.send)
            except RefusedError as refusal:
                await reply.refuse(refusal)
            except Exception as error:
                if not reply.is_started:  # else the application has said it
                    complain(scope, error)
                    await reply.refuse(RefusedError(500, FAILED))

    def _check(self, headers: dict[str, str]) -> None:
        host = headers.get("host", "")
        if not self._is_called(host_name(host)):
            raise RefusedError(403, "this server is for this machine only")
        # A page of another site could make its visitors post here; browsers say so, most of them in
        # a header that stays right behind a proxy, which changes the host.
        site, origin = headers.get("sec-fetch-site"), headers.get("origin")
        is_ours = origin is None or _is_of(origin, host) if site is None else site in OWN_SITES
        if not is_ours:
            raise RefusedError(403, "requests of other sites' pages are refused")


class _Request:
    """A request's body within one time limit: a limit per part would let it trickle in for ever."""

    def __init__(self, scope: Scope, receive: Receive):
        self.headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }
        self._receive = receive
        self._end = asyncio.get_running_loop().time() + connection.SENDING_SECONDS
        announced = self.headers.get("content-length", "0") != "0"
        self.has_more = announced or "transfer-encoding" in self.headers
        self._is_asked_for = "expect" not in self.headers  # else the client waits to be asked

    async def receive(self) -> Message:
        if not self.has_more:  # the application asks whether the client has left
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._end):
                message = await self._receive()
        except TimeoutError as error:
            seconds = connection.SENDING_SECONDS
            raise RefusedError(408, f"the upload took longer than {seconds:g} seconds") from error
        self._is_asked_for = True
        if message["type"] == "http.disconnect":
            raise GoneError
        self.has_more = message.get("more_body", False)
        return message

    async def drain(self) -> None:
        """Reads what the client still sends, for a short time."""
        if not self._is_asked_for:
            return
        try:
            async with asyncio.timeout(LINGER_SECONDS):
                while self.has_more:
                    await self.receive()
        except (TimeoutError, RefusedError):
            pass


class _Reply:
    """Sends a reply with the headers that all have."""

    def __init__(self, send: Send, request: _Request, measures: Measures):
        self._send = send
        self._request = request
        self._measures = measures
        self.is_started = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.is_started = True
            await self._request.drain()
            added = dict(HEADERS)
            if self._request.has_more:  # what follows would be taken for the next request
                added["connection"] = "close"
            pairs = [(name.encode(), value.encode()) for name, value in added.items()]
            message = {**message, "headers": [*message["headers"], *pairs]}
            self._measures.replies.labels(str(message["status"])).inc()
        body = memoryview(message.get("body", b""))
        while len(body) > PART_BYTES:
            part = {"type": message["type"], "body": bytes(body[:PART_BYTES]), "more_body": True}
            await self._send(part)
            body = body[PART_BYTES:]
        await self._send({**message, "body": bytes(body)} if "body" in message else message)

    async def refuse(self, refusal: RefusedError) -> None:
        if self.is_started:
            return
        body = json.dumps({"error": refusal.sentence}).encode()
        headers = {
            "content-type": "application/json",
            "content-length": str(len(body)),
            **refusal.headers,
        }
        pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
        start = {"type": "http.response.start", "status": refusal.status, "headers": pairs}
        await self.send(start)
        await self.send({"type": "http.response.body", "body": body})


def _is_of(origin: str, host: str) -> bool:
    """Whether an Origin header names this host."""
    return re.sub("^https?://", "", origin.lower()) == host.lower()


def complain(scope: Scope, error: Exception) -> None:
    """Prints an error that nobody expected."""
    print(f"error: while answering {scope['method']} {scope['path']!r:.200}:", file=sys.stderr)
    traceback.print_exception(error)


def host_name(header: str) -> str:
    """The name in a Host header without its port; "" if it is missing or invalid."""
    found = re.fullmatch(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]*)?", header.strip().lower())
    return found[1].strip("[]") if found else ""
