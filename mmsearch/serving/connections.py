"""A connection that must say what it wants: a protocol of uvicorn with a timeout for the head.

uvicorn waits for ever for the first byte of a request and between two bytes of its head; a few
hundred such connections, which cost their maker nothing, would take every place there is.
"""

import asyncio

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol


def patient(head_timeout_s: float) -> type[asyncio.Protocol]:
    """Return a protocol that closes a connection whose request's head takes longer."""

    class Patient(H11Protocol):
        _late: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._expect_head()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.conn.their_state is h11.IDLE:
                self._expect_head()
            else:
                self._stop_expecting()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_expecting()
            super().connection_lost(exc)

        def _expect_head(self) -> None:
            if self._late is None:  # else the clock of this head runs already
                self._late = self.loop.call_later(head_timeout_s, self._close)

        def _stop_expecting(self) -> None:
            if self._late is not None:
                self._late.cancel()
                self._late = None

        def _close(self) -> None:
            self._late = None
            if self.conn.their_state is h11.IDLE:
                self.transport.close()

    return Patient
