"""One connection to a client: time limits that uvicorn does not have, and errors as JSON."""

import asyncio
import json
import socket

import h11
from uvicorn.protocols.http import h11_impl

SENDING_SECONDS = 60.0  # for receiving a request, however often a client pauses
TAKING_SECONDS = 60.0  # for sending a reply to a client that does not read
MAX_CONNECTIONS = 1000  # below the usual limit of 1024 open files
PROBE_SECONDS = 0.3
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class Connection(h11_impl.H11Protocol):
    """uvicorn's protocol with limits on slow clients.

    Without them a client that sends its headers byte by byte, or never reads its reply, would keep
    a connection for ever.
    """

    _head: asyncio.TimerHandle | None = None
    _taking: asyncio.TimerHandle | None = None
    _probe: asyncio.TimerHandle | None = None

    def connection_made(self, transport) -> None:
        super().connection_made(transport)
        # Paused means then that something is left to be taken, and resumed that nothing is.
        transport.set_write_buffer_limits(high=0)
        if len(self.connections) > MAX_CONNECTIONS:
            self._refuse(503, "the server has too many connections; try again later")
            return
        self._head = self.loop.call_later(SENDING_SECONDS, self._too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._head, self._taking, self._probe):
            _cancelled(timer)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return  # the parser no longer takes anything
        if self._head is None and self._is_idle():  # a further request on this connection
            self._head = self.loop.call_later(SENDING_SECONDS, self._too_slow)
        super().data_received(data)
        if not self._is_idle():  # the headers are complete; the body has its own limit
            self._head = _cancelled(self._head)

    def eof_received(self) -> bool:  # pyright: ignore[reportIncompatibleMethodOverride]
        """A client that sends no more may still be reading: it gets its reply."""
        if self.transport.is_closing():
            return False
        if self._is_idle():
            if self.conn.trailing_data[0]:
                self._refuse(400, "the request is incomplete")
            return False
        if self.conn.their_state is h11.SEND_BODY:
            self._refuse(400, "the upload is incomplete")
            return False
        self.cycle.keep_alive = False
        if self.conn.their_http_version == b"1.1":
            self._probe = self.loop.call_later(PROBE_SECONDS, self._ask_whether_it_is_there)
        return True  # asyncio would close the connection before the reply

    def _ask_whether_it_is_there(self) -> None:
        """A client that has closed its side altogether resets the connection when it gets data.

        Without asking, its photograph would be predicted for nobody, as under overload, when
        clients give up and try again.
        """
        if self.transport.is_closing() or self.cycle.response_started:
            return
        if self.transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.transport.abort()
            return
        self.transport.write(CONTINUE)
        self._probe = self.loop.call_later(PROBE_SECONDS, self._ask_whether_it_is_there)

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "the request is not valid HTTP")

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._taking is None:
            self._taking = self.loop.call_later(TAKING_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._is_idle():  # else the same reply goes on, and its limit too
            self._taking = _cancelled(self._taking)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.transport.get_write_buffer_size():  # else `resume_writing` does it
            self._taking = _cancelled(self._taking)

    def _is_idle(self) -> bool:
        """Whether no request is being answered."""
        return self.cycle is None or self.cycle.response_complete

    def _too_slow(self) -> None:
        self._head = None
        self._refuse(408, f"the request took longer than {SENDING_SECONDS:g} seconds")

    def _refuse(self, status: int, sentence: str) -> None:
        """Answers without the application, and closes the connection."""
        if self.transport.is_closing():
            return
        if self._is_idle() or not self.cycle.response_started:
            body = json.dumps({"error": sentence}).encode()
            phrase = h11_impl.STATUS_PHRASES[status].decode()
            head = (
                f"HTTP/1.1 {status} {phrase}\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + body)
        if self.cycle is not None:
            self.cycle.disconnected = True  # nothing more is sent
            self.cycle.message_event.set()
        self.transport.close()


def _cancelled(timer: asyncio.TimerHandle | None) -> None:
    if timer is not None:
        timer.cancel()
