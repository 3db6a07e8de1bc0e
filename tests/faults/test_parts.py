"""The processes of ``hubbub serve`` beside the one that serves: killed alone, killed with it, and stopped with it."""

from __future__ import annotations

import os
import signal
from contextlib import closing

import psutil
import pytest

from tests.conftest import Person, Service, eventually, has_ended
from tests.faults.posting import posting, stored


def parts(service: Service) -> dict[str, psutil.Process]:
    return {part.name(): part for part in service.parts()}


@pytest.mark.parametrize("part", ["commit", "search"])
def test_a_part_that_is_killed_ends_the_service_and_loses_nothing(own_service: Service, part: str) -> None:
    with closing(Person(own_service.url)) as ann:
        chat, cookies = ann.chat(), dict(ann.cookies)
    with posting(own_service, chat, cookies) as acknowledged:
        parts(own_service)[f"hubbub-{part}"].kill()
    assert own_service.process.wait(30) == 1
    assert f"The process {part} has ended; the service ends." in own_service.log
    own_service.start()
    bodies = stored(own_service, chat, cookies)
    assert set(acknowledged) <= set(bodies)
    assert len(set(bodies)) == len(bodies)


def test_the_parts_end_with_a_service_that_is_killed(own_service: Service) -> None:
    children = parts(own_service)
    assert set(children) == {"hubbub-commit", "hubbub-search"}
    own_service.process.kill()
    eventually(lambda: all(map(has_ended, children.values())))
    own_service.start()


def test_a_signal_to_all_processes_finishes_what_was_accepted(own_service: Service) -> None:
    """As a terminal sends it, and a supervisor that ends a whole group."""
    with closing(Person(own_service.url)) as ann:
        chat, cookies = ann.chat(), dict(ann.cookies)
    with posting(own_service, chat, cookies) as acknowledged:
        for pid in (*(part.pid for part in own_service.parts()), own_service.process.pid):
            os.kill(pid, signal.SIGINT)
    assert own_service.process.wait(60) == 0
    own_service.start()
    assert set(acknowledged) <= set(stored(own_service, chat, cookies))


def test_it_stops_where_ended_processes_are_not_waited_for(own_service: Service) -> None:
    """Some supervisors ignore SIGCHLD, and what they start inherits that: the system forgets its children at once."""
    own_service.stop()
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        own_service.start()
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert own_service.stop() == 0
    assert "Traceback" not in own_service.log


def test_a_service_that_is_stopped_before_it_serves_leaves_no_process(own_service: Service) -> None:
    """Its port is taken, which it finds out when its parts have been started."""
    taken = Service(own_service.data.parent / "other", port=int(own_service.url.rsplit(":", 1)[1]))
    with pytest.raises(AssertionError):
        taken.start()
    assert taken.process.wait(30) == 1
    eventually(
        lambda: (
            not [each for each in psutil.process_iter(["cmdline"]) if str(taken.data) in (each.info["cmdline"] or [])]
        )
    )
