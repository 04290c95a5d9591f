"""The body of a request as a stream that knows how much of it was read, and can be drained.

A client that sends its whole body before it looks for an answer (Python's http.client does) sees a broken pipe instead
of the status when the server closes the connection on unread bytes. So what a view left unread is read and dropped.
"""

import io
import threading
from collections.abc import Callable
from typing import Protocol

#: How long the rest of a body is waited for, seconds: below the 30 after which clients give up.
DRAIN_SECONDS = 20.0
#: What a multipart body may be longer than the largest file that it may carry, bytes.
ENVELOPE_BYTES = 100_000
#: How many bodies are drained at once. A slow sender may hold its drainer, never a thread that answers requests.
_drainers = threading.BoundedSemaphore(32)
_CHUNK = 256 * 1024


class Source(Protocol):
    def read(self, size: int, /) -> bytes: ...


class BodyStream(io.IOBase):
    """At most `length` bytes of `source`. `length` is exact if `Content-Length` gave it, else only a bound: then up to
    `surplus` bytes more are drained. `before` is called once, before the first byte is waited for."""

    def __init__(
        self, source: Source, length: int, *, surplus: int = 0, before: Callable[[], None] = lambda: None
    ) -> None:
        self._before = before
        self._source = source
        self._left = length
        self._surplus = surplus
        #: Whether anyone has asked for the body: that is when a server sends `100 Continue`.
        self.started = False

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        wanted = self._left if size is None or size < 0 else min(size, self._left)
        if not wanted:
            return b""
        if not self.started:
            self.started = True
            self._before()
        data = self._source.read(wanted)
        self._left -= len(data)
        if not data:
            self._left = self._surplus = 0
        return data

    def drain(self) -> None:
        """Read what is left and drop it: as long as `DRAIN_SECONDS` allow, and not at all if too many others do."""
        self._left += self._surplus
        self._surplus = 0
        if not self._left or not _drainers.acquire(blocking=False):
            return
        # A read blocks until the client sends, and cannot be interrupted: hence a thread of its own.
        drainer = threading.Thread(target=self._drop, name="body-drainer", daemon=True)
        drainer.start()
        drainer.join(DRAIN_SECONDS)

    def _drop(self) -> None:
        try:
            while self.read(_CHUNK):
                pass
        except OSError:
            pass  # the client has gone away: nobody is left to be told
        finally:
            _drainers.release()
