"""The control worker's step that delivers webhooks: one thread serves many receivers at once.

An event loop waits for the receivers, so a slow one does not delay another. One more thread uses the database; no
transaction stays open while the loop waits for a receiver. An event is sent as soon as the log has grown.
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
from webhooks.deliver import Claim, Due
from webhooks.sending import new_client, send

logger = logging.getLogger(__name__)

#: How many webhooks a worker serves at a time.
MOST_AT_ONCE = 100
#: The longest time between two claims, even if the log does not grow, and the wait when the database is away, seconds.
SWEEP_SECONDS = 1.0
#: The log is quiet when it has not grown for so long, seconds. Stopping takes no longer than this.
QUIET_SECONDS = 0.5
#: The shortest time between two claims, seconds: in a large rollout the log grows all the time.
PAUSE_SECONDS = 0.02
#: How often acknowledged events are recorded while more are sent, seconds: a write for each event would delay a rollout
#: on SQLite. After a crash, the events of so many seconds are sent again.
RECORD_SECONDS = 0.1
#: A cursor moves past events of other types after so many of them, or when the log is quiet; not after each one.
SKIP = 1000

Result = TypeVar("Result")


class WebhookDeliverer(bootsteps.StartStopStep):
    """A step of the worker, not of its consumer: events are delivered also while the broker is away."""

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
        self._subscription = ThreadPoolExecutor(1, "webhooks-subscription")
        #: The webhooks that are being delivered.
        self._busy: set[str] = set()

    def stop(self) -> None:
        """Stop the thread. Unfinished attempts are canceled; the next worker makes them again."""
        self._loop.call_soon_threadsafe(self._stopping.set)
        self.join()

    def run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._live())
        self._database.submit(connections.close_all).result()
        self._database.shutdown()
        self._subscription.shutdown()

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
                    due = await self._claim_due(is_quiet)
                    self._busy |= {claim.uid for claim in due.claims}
                    sending |= {asyncio.create_task(self._serve(client, claim)) for claim in due.claims}
                    if growth is None and due.is_any_enabled:
                        growth = asyncio.create_task(self._growth_after(due.position))
                    waited_for = {stopping, *sending} | ({growth} if growth else set())
                    seconds = min(SWEEP_SECONDS, due.seconds_to_next or SWEEP_SECONDS)
                    done, _ = await asyncio.wait(waited_for, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
                    sending -= done
                    is_quiet = growth in done and growth is not None and growth.result() == due.position
                    growth = None if growth in done else growth
                    await asyncio.sleep(PAUSE_SECONDS)
            finally:
                for task in sending:
                    task.cancel()
                await asyncio.gather(*sending, return_exceptions=True)

    async def _claim_due(self, is_quiet: bool) -> Due:
        """Claim the webhooks that are due; none if the database is away."""
        most = MOST_AT_ONCE - len(self._busy)
        least_skip = 1 if is_quiet else SKIP
        try:
            return await self._ask(
                partial(deliver.claim_due, busy=frozenset(self._busy), most=most, least_skip=least_skip)
            )
        except Exception as error:  # noqa: BLE001  # logged; the work is still in the database
            log_failure(logger, f"webhooks are claimed again in {SWEEP_SECONDS} s", error)
            return Due(position=0, claims=(), is_any_enabled=False, seconds_to_next=None)

    async def _serve(self, client: httpx.AsyncClient, claim: Claim) -> None:
        """Deliver events one by one, until none is left or an attempt fails."""
        try:
            while claim.waiting:
                error = await _send_for_a_while(client, claim)
                await self._record_outcome(claim, error)
        except asyncio.CancelledError:
            with suppress(Error):  # the database is away: the lease ends by itself
                await self._ask(partial(deliver.release, claim))
            raise
        except Exception:
            logger.exception("webhook %s is delivered again when its lease has ended", claim.uid)
        finally:
            self._busy.discard(claim.uid)

    async def _record_outcome(self, claim: Claim, error: str | None) -> None:
        """Record it as soon as the database is back: otherwise nothing is delivered before the lease ends."""
        while True:
            try:
                return await self._ask(partial(deliver.record_outcome, claim, error))
            except Error as lost:
                log_failure(logger, f"the outcome of webhook {claim.uid} is recorded again in {SWEEP_SECONDS} s", lost)
                await asyncio.sleep(SWEEP_SECONDS)

    async def _ask(self, question: Callable[[], Result]) -> Result:
        """Run `question` in the thread that has the database's connection."""

        def ask() -> Result:
            close_old_connections()
            return question()

        return await self._loop.run_in_executor(self._database, ask)

    async def _growth_after(self, position: int) -> int:
        wait = partial(wait_for_growth, position, timeout=QUIET_SECONDS)
        return await self._loop.run_in_executor(self._subscription, wait)


async def _send_for_a_while(client: httpx.AsyncClient, claim: Claim) -> str | None:
    """Send waiting events in order, until an attempt fails, none is left, or it is time to record the acknowledged ones.

    Return why the last attempt failed, or None.
    """
    end = time.monotonic() + RECORD_SECONDS
    while claim.waiting and time.monotonic() < end:
        error = await send(client, claim.waiting[0], url=claim.url, secret=claim.secret)
        if error is not None:
            return error
        claim.acknowledge()
    return None
