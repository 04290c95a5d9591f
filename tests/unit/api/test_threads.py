"""Threads on demand: work never waits for one that is busy while another one may be made."""

import gc
import threading
import weakref
from functools import partial

from api import threads
from api.threads import Threads
from tests.waiting import PATIENCE


def test_as_many_as_there_is_work_up_to_the_limit():
    pool, together, rest = Threads(8, "test"), threading.Barrier(9), threading.Event()

    def meet() -> None:
        together.wait(PATIENCE)

    for _ in range(8):
        pool.submit(meet)
    pool.submit(rest.set)
    assert not rest.is_set()
    together.wait(PATIENCE)
    assert rest.wait(PATIENCE)


def test_an_idle_thread_is_used_again_and_ends_after_a_while(monkeypatch):
    monkeypatch.setattr(threads, "IDLE_SECONDS", 0.05)
    pool, seen = Threads(8, "test"), []

    def note(done: threading.Event) -> None:
        seen.append(threading.current_thread())
        done.set()

    for _ in range(3):
        done = threading.Event()
        pool.submit(partial(note, done))
        assert done.wait(PATIENCE)
    for each in seen:
        each.join(PATIENCE)
    assert len(set(seen)) <= 3
    assert pool._running == 0


def test_a_thread_that_waits_keeps_nothing_of_its_last_work_alive():
    class Request:
        pass

    def work(request, done):
        return lambda: request and done.set()

    pool, done, request = Threads(1, "test"), threading.Event(), Request()
    ended = weakref.ref(request)
    pool.submit(work(request, done))
    del request
    assert done.wait(PATIENCE)
    again = threading.Event()
    pool.submit(again.set)
    assert again.wait(PATIENCE)
    gc.collect()
    assert ended() is None
