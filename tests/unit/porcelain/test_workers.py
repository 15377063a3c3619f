"""Threads that do one job for many items, also for those that are added later."""

from __future__ import annotations

import subprocess
import sys
import threading

from dm.porcelain.workers import Lanes, Workers


def collect_all(workers: Workers[int, int]) -> list[int]:
    found: list[int] = []
    while workers.open_count:
        found += workers.collect(workers.open_count, wait_s=0.01)
    return found


def test_every_item_is_done_once_also_those_that_come_later() -> None:
    for most in (1, 2, 8):
        workers: Workers[int, int] = Workers(lambda item: item * 2, most=most)
        workers.add(range(100))
        found = collect_all(workers)
        workers.add([1000])  # every thread has ended by now
        found += collect_all(workers)
        workers.add([])
        workers.stop()
        assert sorted([*range(0, 200, 2), 2000]) == sorted(found)
        assert 0 == workers.busy


def test_what_waits_gets_more_threads_up_to_the_most() -> None:
    barrier = threading.Barrier(5)
    workers: Workers[int, int] = Workers(lambda item: barrier.wait() + item, most=5)
    workers.add(range(5))  # none of them ends unless five run at once
    assert 5 == len(collect_all(workers))
    workers.stop()


def test_after_stop_nothing_new_is_begun() -> None:
    begun, go = [], threading.Event()

    def job(item: int) -> int:
        begun.append(item)
        go.wait()
        return item

    workers: Workers[int, int] = Workers(job, most=1)
    workers.add(range(3))
    collecting = threading.Thread(target=lambda: workers.collect(1, wait_s=0))
    collecting.start()
    while not begun:
        pass
    stopping = threading.Thread(target=workers.stop)
    stopping.start()
    while not workers._stopped:
        pass
    go.set()
    stopping.join()
    collecting.join()
    assert [0] == begun


def test_lanes_are_what_workers_leave_free() -> None:
    busy = 2
    lanes = Lanes(4, lambda: busy)
    assert [True, True, False] == [lanes.try_take() for _ in range(3)]
    assert not lanes.are_overfull()
    busy = 3
    assert lanes.are_overfull()
    lanes.give_back()
    assert not lanes.are_overfull()
    assert not lanes.try_take()


def test_a_signal_that_another_thread_was_given_ends_the_wait() -> None:
    code = """
import signal, threading, time
from dm.porcelain.workers import Workers
signal.signal(signal.SIGINT, signal.default_int_handler)
over, done = threading.Event(), []
def job(item):
    time.sleep(0.5)  # the other one waits by now
    signal.pthread_kill(threading.get_ident(), signal.SIGINT)
    done.append(over.wait(60))
    return item
workers = Workers(job, most=1)
try:
    workers.add([1])
    workers.collect(1, wait_s=0.0)
except KeyboardInterrupt:
    print("interrupted", done)
over.set()
workers.stop()
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert "interrupted []\n" == result.stdout
