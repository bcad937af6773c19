"""Ways to break a keyspace by hand, each with the invariants it breaks and the job that shows it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from hybridq.keys import queue_root
from tests.check.conftest import Shop

HOUR_MS = 3_600_000
Break = Callable[[Shop], object]


@dataclass(frozen=True)
class Case:
    """One way to break a shop. `job_id` is None when the violation is the queue's."""

    sentence: str
    invariants: set[int]
    job_id: str | None
    do: Break


CASES: list[Case] = []


def breaks(sentence: str, *invariants: int, job: str | None = None) -> Callable[[Break], Break]:
    """Register a way to break a shop."""

    def register(do: Break) -> Break:
        CASES.append(Case(sentence, set(invariants), job, do))
        return do

    return register


# -- places -----------------------------------------------------------------------------------------------


@breaks("a queued job is missing from its lane", 1, job="queued")
def _(shop: Shop) -> None:
    shop.redis.zrem(shop.key("ready:any"), "queued")


@breaks("a finished job is also in its lane", 1, job="completed")
def _(shop: Shop) -> None:
    shop.redis.zadd(shop.key("ready:any"), {"completed": 1})


@breaks("a job is in a lane that its record does not name", 1, job="queued")
def _(shop: Shop) -> None:
    shop.redis.zadd(shop.key("ready:gpu"), {"queued": 1})


@breaks("a job stands at another place than its order says", 1, job="second")
def _(shop: Shop) -> None:
    shop.redis.zincrby(shop.key("ready:any"), -1_000, "second")


@breaks("an index lists a job that has no record", 1, job="ghost")
def _(shop: Shop) -> None:
    shop.redis.zadd(shop.key("leased"), {"ghost": 1})


@breaks("the record of a queued job is gone", 1, 12, job="queued")
def _(shop: Shop) -> None:
    shop.redis.delete(shop.job("queued"))


@breaks("a spec is left of a job that was erased", 1, job="erased")
def _(shop: Shop) -> None:
    shop.redis.hset(shop.key("spec"), "erased", b"{}\nnull")


@breaks("a history is left of a job that was erased", 1, job="erased")
def _(shop: Shop) -> None:
    shop.redis.hset(shop.key("result"), "erased", b"[]")


@breaks("a log is left of a job that was erased", 1, job="erased")
def _(shop: Shop) -> None:
    shop.redis.set(shop.key("log:erased"), "last words")
    shop.redis.hincrby(shop.key("meta"), "logs_bytes", 10)


@breaks("the index of logs lists a job that was erased", 1, job="erased")
def _(shop: Shop) -> None:
    shop.redis.zadd(shop.key("logs"), {"erased": 1})


@breaks("the log of an ended job is in no index", 1, job="completed")
def _(shop: Shop) -> None:
    shop.redis.zrem(shop.key("logs"), "completed")


@breaks("the log of an ended job stands elsewhere than its end", 1, job="completed")
def _(shop: Shop) -> None:
    shop.redis.zincrby(shop.key("logs"), -1, "completed")


@breaks("the log of a job that runs may be dropped", 1, job="running")
def _(shop: Shop) -> None:
    shop.redis.zadd(shop.key("logs"), {"running": 1})


@breaks("a log is gone and its record does not know", 7, 9, job="running")
def _(shop: Shop) -> None:
    shop.redis.delete(shop.key("log:running"))


@breaks("a job said something that its record does not know of", 9, job="queued")
def _(shop: Shop) -> None:
    shop.redis.set(shop.key("log:queued"), "hello")
    shop.redis.hincrby(shop.key("meta"), "logs_bytes", 5)


@breaks("a log was written under a fence that the job never had", 4, job="running")
def _(shop: Shop) -> None:
    shop.redis.hincrby(shop.job("running"), "log_fence", 1)


@breaks("the bytes of the logs are miscounted", 7)
def _(shop: Shop) -> None:
    shop.redis.hincrby(shop.key("meta"), "logs_bytes", 3)


@breaks("upkeep left more of logs than it should", 0)
def _(shop: Shop) -> None:
    shop.queue.upkeep()
    shop.redis.hset(shop.key("meta"), mapping={"logs_bytes_max": 5, "activity_ms": 0})


@breaks("a bound of logs is no number", 0)
def _(shop: Shop) -> None:
    shop.redis.hset(shop.key("meta"), "log_bytes_max", "much")


@breaks("a record is not listed in all", 1, 7, job="second")
def _(shop: Shop) -> None:
    shop.redis.zrem(shop.key("all"), "second")


@breaks("a job has a status that does not exist", 1, job="queued")
def _(shop: Shop) -> None:
    shop.redis.hset(shop.job("queued"), "status", "PENDING")


# -- leases ------------------------------------------------------------------------------------------------


@breaks("a leased job has no lease id", 2, job="running")
def _(shop: Shop) -> None:
    shop.redis.hdel(shop.job("running"), "lease_id")


@breaks("a waiting job still names an agent", 2, job="queued")
def _(shop: Shop) -> None:
    shop.redis.hset(shop.job("queued"), "agent", "agent-1")


@breaks("a lease is missing from its agent's held set", 2, job="running")
def _(shop: Shop) -> None:
    shop.redis.zrem(shop.key("held:agent-1"), "running")


@breaks("a lease is in the held set of another agent too", 2, job="claimed")
def _(shop: Shop) -> None:
    shop.redis.zadd(shop.key("held:agent-2"), {"claimed": 1})


@breaks("a held set keeps a job that was given back", 2, job="queued")
def _(shop: Shop) -> None:
    shop.redis.zadd(shop.key("held:agent-1"), {"queued": 1})


@breaks("a lease has two deadlines", 2, job="running")
def _(shop: Shop) -> None:
    shop.redis.zincrby(shop.key("held:agent-1"), -1, "running")


@breaks("a fence is above all the queue has given out", 3, job="running")
def _(shop: Shop) -> None:
    shop.redis.hset(shop.job("running"), "fence", int(shop.field("claimed", "fence")) + 1_000_000)


@breaks("two leases have one fence", 3, job="claimed")
def _(shop: Shop) -> None:
    shop.redis.hset(shop.job("claimed"), "fence", shop.field("running", "fence"))


@breaks("the last fence of the queue was set back", 3, job="dead")
def _(shop: Shop) -> None:
    shop.redis.hset(shop.key("meta"), "fence", 1)


@breaks("a lease lasts longer than any lease may", 14, job="running")
def _(shop: Shop) -> None:
    late_ms = (time.time() + 7200) * 1000
    for index in ("leased", "held:agent-1"):
        shop.redis.zadd(shop.key(index), {"running": round(late_ms)})


@breaks("a finished job still has its lease", 10, job="completed")
def _(shop: Shop) -> None:
    shop.redis.hset(shop.job("completed"), "lease_id", "0" * 32)


# -- attempts and histories -----------------------------------------------------------------------------------


@breaks("a queued job has used all its attempts", 5, job="queued")
def _(shop: Shop) -> None:
    shop.redis.hset(shop.job("queued"), mapping={"attempt": 3, "deliveries": 3})


@breaks("an attempt was charged that nobody was given", 5, job="second")
def _(shop: Shop) -> None:
    shop.redis.hset(shop.job("second"), "attempt", 1)


@breaks("a job waits after twenty leases that were never started", 5, job="queued")
def _(shop: Shop) -> None:
    shop.redis.hset(shop.job("queued"), mapping={"unstarted": 20, "deliveries": 20})


@breaks("a dead letter has no reason", 5, job="dead")
def _(shop: Shop) -> None:
    shop.redis.hdel(shop.job("dead"), "dead_reason")


@breaks("more leases have ended than were given", 11, job="completed")
def _(shop: Shop) -> None:
    line = shop.redis.hget(shop.key("result"), "failed")
    assert isinstance(line, bytes)
    shop.redis.hset(shop.key("result"), "completed", b"\n".join([_fence(line, 1), _line(shop, "completed")]))
    shop.redis.hset(shop.job("completed"), "ended", 2)


@breaks("a history has lost a line", 11, job="completed")
def _(shop: Shop) -> None:
    shop.redis.hdel(shop.key("result"), "completed")


@breaks("a history line is torn", 9, job="completed")
def _(shop: Shop) -> None:
    shop.redis.hset(shop.key("result"), "completed", _line(shop, "completed")[:-5])


@breaks("the fences of a history go down", 3, job="retried")
def _(shop: Shop) -> None:
    line = _line(shop, "retried")
    shop.redis.hset(shop.key("result"), "retried", line + b"\n" + _fence(line, 1))
    shop.redis.hset(shop.job("retried"), mapping={"ended": 2, "deliveries": 2})


@breaks("a job went on after it was completed", 10, job="retried")
def _(shop: Shop) -> None:
    line = _line(shop, "retried")
    done = _fence(line, 1).replace(b'"SCHEDULED"', b'"COMPLETED"')
    shop.redis.hset(shop.key("result"), "retried", done + b"\n" + line)
    shop.redis.hset(shop.job("retried"), mapping={"ended": 2, "deliveries": 2})


@breaks("a failed job's last report was a success", 11, job="failed")
def _(shop: Shop) -> None:
    line = _line(shop, "failed").replace(b'"rejected","FAILED"', b'"success","COMPLETED"')
    shop.redis.hset(shop.key("result"), "failed", line)


# -- order and time ----------------------------------------------------------------------------------------------


@breaks("a queued job has no order", 6, job="queued")
def _(shop: Shop) -> None:
    shop.redis.hdel(shop.job("queued"), "order")


@breaks("two queued jobs have the same place in line", 6)
def _(shop: Shop) -> None:
    order = shop.field("queued", "order")
    shop.redis.hset(shop.job("second"), "order", order)
    shop.redis.zadd(shop.key("ready:any"), {"second": 2 * 2**44 + int(order)})


@breaks("the queue forgot how many orders it gave out", 6, job="second")
def _(shop: Shop) -> None:
    shop.redis.hset(shop.key("meta"), "order", 1)


@breaks("a scheduled job is due at another time than its record says", 16, job="scheduled")
def _(shop: Shop) -> None:
    shop.redis.zincrby(shop.key("scheduled:NORMAL"), -HOUR_MS, "scheduled")


# -- content ------------------------------------------------------------------------------------------------------


@breaks("a spec is gone", 9, job="queued")
def _(shop: Shop) -> None:
    shop.redis.hdel(shop.key("spec"), "queued")


@breaks("a spec's header is no JSON", 9, job="queued")
def _(shop: Shop) -> None:
    shop.redis.hset(shop.key("spec"), "queued", b"{type: work}\nnull")


@breaks("a record has no digest", 9, job="queued")
def _(shop: Shop) -> None:
    shop.redis.hdel(shop.job("queued"), "digest")


@breaks("a number of a record is none", 9, job="queued")
def _(shop: Shop) -> None:
    shop.redis.hset(shop.job("queued"), "enqueued_ms", "1.5e12")


@breaks("a record has a field nobody knows", 0, job="queued")
def _(shop: Shop) -> None:
    shop.redis.hset(shop.job("queued"), "atempt", "1")


@breaks("a record keeps a long value", 0, job="failed")
def _(shop: Shop) -> None:
    shop.redis.hset(shop.job("failed"), "avoid", "a" * 65)


# -- unique keys and tombstones --------------------------------------------------------------------------------------


@breaks("a live job does not hold its unique key", 12, job="queued")
def _(shop: Shop) -> None:
    shop.redis.hdel(shop.key("unique"), "order-3")


@breaks("a cancelled job holds its unique key", 12, job="cancelled")
def _(shop: Shop) -> None:
    shop.redis.hset(shop.key("unique"), "order-2", "cancelled")


@breaks("a job holds a unique key it never had", 12, job="second")
def _(shop: Shop) -> None:
    shop.redis.hset(shop.key("unique"), "order-9", "second")


@breaks("a tombstone is missing from the list by age", 12)
def _(shop: Shop) -> None:
    shop.redis.delete(shop.key("tombs_by_age"))


@breaks("the list by age names a tombstone that is gone", 12, job="buried")
def _(shop: Shop) -> None:
    shop.redis.delete(shop.key("tombs"))


@breaks("a tombstone does not read", 12, job="buried")
def _(shop: Shop) -> None:
    shop.redis.hset(shop.key("tombs"), "buried", "yesterday")


@breaks("a live job has a tombstone", 12, job="queued")
def _(shop: Shop) -> None:
    shop.redis.hset(shop.key("tombs"), "queued", "1 digest 0 - COMPLETED")
    shop.redis.rpush(shop.key("tombs_by_age"), "queued")


# -- counters and bounds ----------------------------------------------------------------------------------------------


@breaks("an enqueue was counted twice", 7)
def _(shop: Shop) -> None:
    shop.redis.hincrby(shop.key("stats"), "enqueued", 1)


@breaks("a completion was counted twice", 7)
def _(shop: Shop) -> None:
    shop.redis.hincrby(shop.key("stats"), "completed", 1)


@breaks("the gauge of running jobs has drifted", 7)
def _(shop: Shop) -> None:
    shop.redis.hincrby(shop.key("stats"), "running", 1)


@breaks("a counter is negative", 7)
def _(shop: Shop) -> None:
    shop.redis.hset(shop.key("stats"), "released", -1)


@breaks("an entry stopped half way", 7)
def _(shop: Shop) -> None:
    shop.redis.hset(shop.key("stats"), "in_doubt", 1)


@breaks("the stream of events is not trimmed", 0)
def _(shop: Shop) -> None:
    with shop.redis.pipeline(transaction=False) as pipe:
        for _ in range(11_200):
            pipe.xadd(shop.key("events"), {"job.claimed": "queued QUEUED - 0"})
        pipe.execute()


@breaks("upkeep left more agents than it should", 0)
def _(shop: Shop) -> None:
    shop.queue.upkeep()
    shop.redis.zadd(shop.key("agents"), {f"agent-{n}": 1 for n in range(1300)})
    shop.redis.hset(shop.key("meta"), "activity_ms", 0)


@breaks("a limit of the queue is no number", 0)
def _(shop: Shop) -> None:
    shop.redis.hset(shop.key("meta"), "max_dead", "many")


@breaks("the queue is of another schema", 0)
def _(shop: Shop) -> None:
    shop.redis.hset(shop.key("meta"), "schema", "2")


@breaks("the queue's own record is gone", 8)
def _(shop: Shop) -> None:
    shop.redis.delete(shop.key("meta"))


# -- keys -------------------------------------------------------------------------------------------------------


@breaks("a record will vanish by itself", 8)
def _(shop: Shop) -> None:
    shop.redis.expire(shop.job("queued"), 3600)


@breaks("a minute of latencies never vanishes", 0)
def _(shop: Shop) -> None:
    shop.redis.hset(shop.key("latency:29000000"), "w1", 1)


@breaks("a key belongs to no family", 17)
def _(shop: Shop) -> None:
    shop.redis.set(shop.key("locks:queued"), "1")


@breaks("a lane key names something that is no lane", 17)
def _(shop: Shop) -> None:
    shop.redis.zadd(shop.key("ready:a}b"), {"queued": 1})


@breaks("a key has the wrong type", 17)
def _(shop: Shop) -> None:
    shop.redis.delete(shop.key("leased"))
    shop.redis.set(shop.key("leased"), "1")


@breaks("a record is no hash", 17, job="queued")
def _(shop: Shop) -> None:
    shop.redis.delete(shop.job("queued"))
    shop.redis.set(shop.job("queued"), "1")


@breaks("a key of the queue has no hash tag", 17, 18)
def _(shop: Shop) -> None:
    root = queue_root(shop.queue.namespace, shop.queue.name)
    shop.redis.set(root.replace("{", "").replace("}", "") + ":meta", "1")


def _line(shop: Shop, job_id: str) -> bytes:
    line = shop.redis.hget(shop.key("result"), job_id)
    assert isinstance(line, bytes)
    return line


def _fence(line: bytes, fence: int) -> bytes:
    """The same line with another fence."""
    head, agent, _, rest = line.split(b",", 3)
    return b",".join([head, agent, str(fence).encode(), rest])
