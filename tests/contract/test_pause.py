"""pause and resume: no job is handed out; everything else goes on."""

from __future__ import annotations

from tests.contract.harness import NOW, Rig


def pause(rig: Rig, paused: int = 1, **fields: str) -> list[object]:
    return rig.one("pause", paused=paused, **fields)


def test_a_new_queue_is_not_paused(rig: Rig) -> None:
    before = rig.snapshot()

    assert pause(rig, 0) == ["PAUSE", "0", "", "", "0"]
    assert before == rig.snapshot()


def test_a_paused_queue_says_why_by_whom_and_since_when(rig: Rig) -> None:
    rig.now += 10

    assert pause(rig, reason="deploy", by="ann") == ["PAUSE", "1", "deploy", "ann", str(NOW + 10)]
    assert rig.events() == ["queue.paused - PAUSED - 0"]


def test_the_first_reason_stands_until_resume(rig: Rig) -> None:
    pause(rig, reason="deploy", by="ann")
    before = rig.snapshot()

    assert pause(rig, reason="lunch", by="bob") == ["PAUSE", "1", "deploy", "ann", str(NOW)]
    assert before == rig.snapshot()


def test_resume_says_by_whom_and_is_idempotent(rig: Rig) -> None:
    pause(rig, reason="deploy", by="ann")
    rig.now += 10

    assert pause(rig, 0, by="bob") == ["PAUSE", "0", "", "bob", str(NOW + 10)]
    before = rig.snapshot()
    assert pause(rig, 0, by="eve") == ["PAUSE", "0", "", "bob", str(NOW + 10)]
    assert before == rig.snapshot()
    assert rig.events() == ["queue.paused - PAUSED - 0", "queue.resumed - RESUMED - 0"]


def test_a_paused_queue_hands_out_nothing_until_it_is_resumed(rig: Rig) -> None:
    rig.enqueue("a", delay_ms=100)
    rig.enqueue("b")
    pause(rig)

    assert rig.claim_reply() == ["PAUSED", 0, "100"]
    pause(rig, 0)
    assert [held.job_id for held in rig.claim()] == ["b"]


def test_leased_work_goes_on_in_a_paused_queue(rig: Rig) -> None:
    rig.enqueue("a", "b", "c")
    [first, second, third] = rig.claim(max=3)
    pause(rig)

    assert rig.start(first)[0] == "STARTED"
    assert rig.heartbeat(first)[0] == "RENEWED"
    assert rig.complete(first)[:2] == ["DONE", "COMPLETED"]
    assert rig.release(second)[:2] == ["RELEASED", "QUEUED"]
    rig.cancel("c")
    assert rig.start(third) == ["CANCELLED"]


def test_upkeep_goes_on_in_a_paused_queue(rig: Rig) -> None:
    rig.enqueue("a")
    rig.running()
    rig.enqueue("b", delay_ms=1000)
    pause(rig)
    rig.live(30_000)

    assert rig.claim_reply()[0] == "PAUSED"
    assert rig.line() == ["a", "b"]
