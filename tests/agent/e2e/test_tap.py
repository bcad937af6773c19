"""The tap: what the other tests believe about calls is what this one wrote down."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from hybridq import check
from hybridq.agent import Client
from tests.agent.e2e.house import House
from tests.servers import wait_until


def events(house: House, op: str) -> list[check.Event]:
    return [event for event in house.recorder.events if event.op == op and event.args["queue"] == house.pool]


def test_a_call_is_known_by_its_answer_though_the_network_loses_it(house: House) -> None:
    job = house.client.enqueue("t", {"a": 1}, pool=house.pool)
    with house.new_tap("a") as tap, Client(tap.url, token=house.registration_key()) as client:
        client.register("tap-a", pool=house.pool)
        lost = tap.drop_next_reply(b"/claim")
        claimed = client.claim(request_id="one").job
        assert lost.is_set() and claimed is not None
        client.start(claimed.id, claimed.lease_token)
        client.heartbeat(leases=[claimed])
        client.complete(claimed.id, claimed.lease_token)
        client.deregister()
    assert house.client.job(job.id).status == "COMPLETED"

    first, again = events(house, "claim")
    assert (first.type, again.type) == ("ok", "ok")
    assert [lease["fence"] for lease in first.result] == [lease["fence"] for lease in again.result] == [claimed.fence]
    assert [
        event.type for op in ("enqueue", "start", "heartbeat", "complete", "job") for event in events(house, op)
    ] == ["ok"] * 5
    assert len([heard for heard in tap.heard if heard.path == "/api/queue/claim"]) == 2
    check.history(house.recorder.events).raise_if_broken()


def test_a_call_without_an_answer_stays_in_doubt(house: House) -> None:
    job = house.client.enqueue("t", {"a": 1}, pool=house.pool)
    with house.new_tap("a") as tap, house.connect(tap.url) as client:
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(client.job, job.id, wait_seconds=20)
            wait_until(lambda: tap.heard, 10, what="the call is on its way")
            tap.cut()
            wait_until(lambda: len(tap.heard) == 2, 10, what="the call is made again")
            house.client.cancel(job.id)
            assert waiting.result().status == "CANCELLED"
    assert [heard.status for heard in tap.heard] == [0, 200]
    assert [event.type for event in events(house, "job")] == ["info", "ok"]


def test_what_the_tap_heard_can_be_found_broken(house: House) -> None:
    """A history in which an ended lease is used once more is refused."""
    house.client.enqueue("t", {"a": 1}, pool=house.pool)
    with house.new_tap("a") as tap, Client(tap.url, token=house.registration_key()) as client:
        client.register("tap-b", pool=house.pool)
        claimed = client.claim().job
        assert claimed is not None
        client.start(claimed.id, claimed.lease_token)
        client.complete(claimed.id, claimed.lease_token)
        client.deregister()
    history = list(house.recorder.events)
    check.history(history).raise_if_broken()
    with pytest.raises(check.InvariantBroken):
        check.history([event for event in history if event.op != "claim"]).raise_if_broken()
