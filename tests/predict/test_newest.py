"""Of a source that does not wait, only the newest item does."""

import threading
import time

import pytest

from poise.predict.newest import newest


def camera(steps, count=10):
    """Numbers; each is made when ``steps`` lets it."""
    for number in range(count):
        assert steps.acquire(timeout=30)
        yield number


def release_and_wait(steps, made, count):
    """Let so many numbers be made, and wait until they are."""
    before = len(made)
    steps.release(count)
    until = time.monotonic() + 30
    while len(made) < before + count:
        assert time.monotonic() < until
        time.sleep(0.001)


def noted(items, made):
    """The items; each is noted when the next one is asked for, so when it has been handed over."""
    for item in items:
        yield item
        made.append(item)


def test_who_is_slow_goes_on_with_the_newest():
    steps, made = threading.Semaphore(1), []
    taken = newest(noted(camera(steps), made))
    assert next(taken) == 0
    release_and_wait(steps, made, 4)
    assert next(taken) == 4
    release_and_wait(steps, made, 1)
    assert next(taken) == 5
    release_and_wait(steps, made, 4)
    assert list(taken) == [9]


def test_who_is_quick_misses_nothing():
    steps = threading.Semaphore(1)
    found = []
    for item in newest(camera(steps)):
        found.append(item)
        steps.release()
    assert found == list(range(10))


def test_an_error_comes_behind_the_last_item():
    steps, made = threading.Semaphore(3), []

    def broken():
        yield from noted(camera(steps, 3), made)
        raise OSError("connection lost")

    taken = newest(broken())
    found = [next(taken)]
    with pytest.raises(OSError, match="connection lost"):
        found.extend(taken)
    assert found in ([0, 2], [0, 1, 2], [1, 2], [2])
    with pytest.raises(StopIteration):
        next(taken)


def test_nothing_comes_of_nothing():
    assert list(newest([])) == []


def test_who_stops_early_ends_the_thread_and_closes_the_source():
    closed = threading.Event()

    def endless():
        number = 0
        try:
            while True:
                yield (number := number + 1)
        finally:
            closed.set()

    taken = newest(endless())
    assert next(taken) >= 1
    taken.close()
    assert closed.wait(30)
    assert "poise-newest" not in {thread.name for thread in threading.enumerate()}
