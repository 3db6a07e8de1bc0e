"""The ring in shared memory: what is read is what was written, or it is known to be missed."""

from __future__ import annotations

import os

from hubbub.embedded.ring import Ring, RingReader


def test_records_come_in_order_however_often_the_ring_goes_round() -> None:
    ring = Ring(1000)
    reader = RingReader(ring)
    for number in range(500):
        content = b"%d" % number * (number % 90 + 1)
        ring.write(content)
        assert reader.next() == content
    assert reader.at == ring.head[0]


def test_a_reader_that_was_overtaken_misses_all_before_and_goes_on() -> None:
    ring = Ring(1000)
    reader = RingReader(ring)
    for number in range(100):
        ring.write(b"old %d" % number)
    assert reader.next() is None
    assert reader.at == ring.head[0]
    ring.write(b"new")
    assert reader.next() == b"new"


def test_a_record_that_is_overwritten_while_it_is_read_is_missed() -> None:
    ring = Ring(1000)
    reader = RingReader(ring)
    ring.write(b"a" * 500)
    head = ring.head[0]
    ring.write(b"b" * 700)
    ring.head[0] = head  # the writer has written over the first record, but has not raised the head yet
    assert reader.next() is None


def test_a_record_that_is_longer_than_the_ring_is_missed() -> None:
    ring = Ring(1000)
    reader = RingReader(ring)
    ring.write(b"x" * 2000)
    assert reader.next() is None
    ring.write(b"after")
    assert reader.next() == b"after"


def test_another_process_reads_what_is_written_after_the_fork() -> None:
    ring = Ring(1000)
    reader = RingReader(ring)
    child = os.fork()
    if child == 0:
        ring.write(b"of the child")
        os._exit(0)
    os.waitpid(child, 0)
    assert reader.next() == b"of the child"


def test_a_record_that_is_being_overwritten_is_missed() -> None:
    ring = Ring(1000)
    reader = RingReader(ring)
    ring.write(b"x" * 100)
    ring._bytes[50:60] = b"y" * 10
    assert reader.next() is None
    ring.write(b"z")
    assert reader.next() == b"z"
