"""Threads that read ahead and write behind: order, bounds, errors, ends."""

import threading
import time

import pytest

from poise.predict.overlap import Behind, ahead


def living():
    return [t.name for t in threading.enumerate() if t.name.startswith("poise-")]


def test_order_and_completeness():
    assert list(ahead(range(100), size=3)) == list(range(100))
    assert list(ahead([])) == []
    assert living() == []


def test_little_waits():
    made = []

    def items():
        for i in range(50):
            made.append(i)
            yield i

    for i, item in enumerate(ahead(items(), size=2)):
        assert item == i
        time.sleep(0.002)
        assert len(made) <= i + 5


def test_work_overlaps():
    """Two threads at once take the time of one."""

    def items():
        for i in range(10):
            time.sleep(0.03)
            yield i

    start = time.monotonic()
    for _ in ahead(items()):
        time.sleep(0.03)
    assert time.monotonic() - start < 0.55


def test_an_error_comes_where_its_item_would_have_come():
    def items():
        yield 1
        yield 2
        raise ValueError("third")

    stream = ahead(items())
    assert [next(stream), next(stream)] == [1, 2]
    with pytest.raises(ValueError, match="third"):
        next(stream)
    assert living() == []


def test_who_stops_early_stops_the_thread_and_closes_its_source():
    closed = []

    def items():
        try:
            yield from iter(int, 1)
        finally:
            closed.append(True)

    stream = ahead(items(), size=2)
    next(stream)
    stream.close()
    assert closed == [True]
    assert living() == []


def test_written_in_order_while_the_caller_goes_on():
    done = []

    def slow(item):
        time.sleep(0.01)
        done.append(item)

    with Behind(slow, size=3) as behind:
        for i in range(10):
            behind.put(i)
        assert len(done) < 10
    assert done == list(range(10))
    assert living() == []


def test_an_error_of_the_writer_reaches_the_caller():
    def broken(item):
        if item == 2:
            raise OSError("disk full")

    def write():
        with Behind(broken, size=2) as behind:
            for i in range(1000):
                behind.put(i)
                time.sleep(0.001)
            pytest.fail("nothing was raised")

    with pytest.raises(OSError, match="disk full"):
        write()
    assert living() == []

    def last():
        with Behind(broken) as behind:
            behind.put(2)

    with pytest.raises(OSError, match="disk full"):
        last()


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_what_was_given_is_worked_off_after_ctrl_c_and_after_an_error(error):
    done = []
    gate = threading.Event()

    def slow(item):
        gate.wait(5)
        done.append(item)

    def write():
        with Behind(slow, size=8) as behind:
            for i in range(5):
                behind.put(i)
            time.sleep(0.05)
            threading.Timer(0.05, gate.set).start()
            raise error

    with pytest.raises(error):
        write()
    assert len(done) == 5
