"""The control worker's step that delivers webhooks: one thread that waits for many receivers at once.

Receivers are waited for in an event loop, so that no number of slow ones holds up another; the database is asked in one
thread beside it, which holds nothing while they are waited for. An event leaves as soon as the log has grown.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import httpx
from celery import bootsteps
from django.db import Error, close_old_connections, connections

from api.failures import log_failure
from eventstore import wait_for_growth
from webhooks import deliver
from webhooks.deliver import Claim, Look
from webhooks.sending import new_client, send

logger = logging.getLogger(__name__)

#: How many webhooks a worker serves at a time.
MOST_AT_ONCE = 100
#: How often webhooks are looked at even if nothing happened, and the wait when the database is away, seconds.
SWEEP_SECONDS = 1.0
#: When the log has not grown for so long it is quiet, seconds; stopping takes as long at most.
QUIET_SECONDS = 0.5
#: Least time between two looks, seconds: in a large rollout the log grows all the time.
PAUSE_SECONDS = 0.02
#: How often, in seconds, it is noted what was acknowledged while more is sent: a write for each event would hold up a
#: rollout on SQLite. So much is sent again after a crash.
NOTE_SECONDS = 0.1
#: A cursor is moved over events that its webhook does not want at the latest after so many of them, and else when the
#: log is quiet: not at each.
SKIP = 1000

Result = TypeVar("Result")


class WebhookDeliverer(bootsteps.StartStopStep):
    """Of the worker, not of its consumer: events are delivered while the broker is away."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, parent: Any, **options: Any) -> None:
        super().__init__(parent, **options)
        self._thread: Deliverer | None = None

    def start(self, parent: Any) -> None:
        self._thread = Deliverer()
        self._thread.start()

    def stop(self, parent: Any) -> None:
        if self._thread is not None:
            self._thread.stop()
            self._thread = None

    terminate = stop


class Deliverer(threading.Thread):
    """Delivers all webhooks, for as long as the process lives."""

    def __init__(self) -> None:
        super().__init__(name="deliver-webhooks", daemon=True)
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._database = ThreadPoolExecutor(1, "webhooks-database")
        self._follower = ThreadPoolExecutor(1, "webhooks-follow")
        #: The webhooks that are being delivered.
        self._busy: set[str] = set()

    def stop(self) -> None:
        """Attempts that are under way are broken off, and made again by whoever is next."""
        self._loop.call_soon_threadsafe(self._stopping.set)
        self.join()

    def run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._live())
        self._database.submit(connections.close_all).result()
        self._database.shutdown()
        self._follower.shutdown()

    async def _live(self) -> None:
        while not self._stopping.is_set():
            try:
                await self._deliver()
            except Exception as error:  # noqa: BLE001  # the outermost loop: it is logged
                log_failure(logger, f"webhooks are delivered again in {SWEEP_SECONDS} s", error)
                await asyncio.sleep(SWEEP_SECONDS)

    async def _deliver(self) -> None:
        stopping = asyncio.create_task(self._stopping.wait())
        growth: asyncio.Task[int] | None = None
        sending: set[asyncio.Task[None]] = set()
        is_quiet = True
        async with new_client() as client:
            try:
                while not stopping.done():
                    look = await self._look(is_quiet)
                    self._busy |= {claim.uid for claim in look.claims}
                    sending |= {asyncio.create_task(self._serve(client, claim)) for claim in look.claims}
                    if growth is None and look.is_any_enabled:
                        growth = asyncio.create_task(self._growth_after(look.position))
                    waited_for = {stopping, *sending} | ({growth} if growth else set())
                    seconds = min(SWEEP_SECONDS, look.seconds_to_next or SWEEP_SECONDS)
                    done, _ = await asyncio.wait(waited_for, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
                    sending -= done
                    is_quiet = growth in done and growth is not None and growth.result() == look.position
                    growth = None if growth in done else growth
                    await asyncio.sleep(PAUSE_SECONDS)
            finally:
                for task in sending:
                    task.cancel()
                await asyncio.gather(*sending, return_exceptions=True)

    async def _look(self, is_quiet: bool) -> Look:
        """What is due; nothing if the database cannot be asked."""
        most = MOST_AT_ONCE - len(self._busy)
        least_skip = 1 if is_quiet else SKIP
        try:
            return await self._ask(
                partial(deliver.claim_due, busy=frozenset(self._busy), most=most, least_skip=least_skip)
            )
        except Exception as error:  # noqa: BLE001  # logged; all that was to be done still stands in the database
            log_failure(logger, f"webhooks are looked at again in {SWEEP_SECONDS} s", error)
            return Look(position=0, claims=(), is_any_enabled=False, seconds_to_next=None)

    async def _serve(self, client: httpx.AsyncClient, claim: Claim) -> None:
        """Deliver one event after the other, until none is left or an attempt fails."""
        try:
            while claim.waiting:
                error = await _send_for_a_while(client, claim)
                await self._note(claim, error)
        except asyncio.CancelledError:
            with suppress(Error):  # the database is away: the lease runs out
                await self._ask(partial(deliver.release, claim))
            raise
        except Exception:
            logger.exception("webhook %s is delivered again when its lease has run out", claim.uid)
        finally:
            self._busy.discard(claim.uid)

    async def _note(self, claim: Claim, error: str | None) -> None:
        """As soon as the database is there, for nothing is delivered before the lease ends otherwise."""
        while True:
            try:
                return await self._ask(partial(deliver.note, claim, error))
            except Error as lost:
                log_failure(logger, f"webhook {claim.uid} is noted again in {SWEEP_SECONDS} s", lost)
                await asyncio.sleep(SWEEP_SECONDS)

    async def _ask(self, question: Callable[[], Result]) -> Result:
        """In the thread that has the database's connection."""

        def ask() -> Result:
            close_old_connections()
            return question()

        return await self._loop.run_in_executor(self._database, ask)

    async def _growth_after(self, position: int) -> int:
        wait = partial(wait_for_growth, position, timeout=QUIET_SECONDS)
        return await self._loop.run_in_executor(self._follower, wait)


async def _send_for_a_while(client: httpx.AsyncClient, claim: Claim) -> str | None:
    """Send what waits, in order, until something fails, nothing is left, or it is time to note what was acknowledged.

    Why the last attempt failed, if it did.
    """
    end = time.monotonic() + NOTE_SECONDS
    while claim.waiting and time.monotonic() < end:
        error = await send(client, claim.waiting[0], url=claim.url, secret=claim.secret)
        if error is not None:
            return error
        claim.acknowledge()
    return None
