"""Which peers are measured, at which versions, in which of their documented settings, and what each promises."""

from __future__ import annotations

from typing import Final

import msgspec

CAN_ALL: Final = (
    "enqueue one",
    "enqueue concurrent",
    "enqueue bulk",
    "drain one",
    "drain concurrent",
    "drain, 2 processes",
    "latency",
)


class Peer(msgspec.Struct, frozen=True, kw_only=True):
    """One peer. `packages` are of PyPI, or of npm for a program that ends in `.mjs`."""

    name: str
    program: str
    packages: tuple[str, ...]
    delivery: str
    """`≥1`: a job whose worker dies is run again · `≤1`: it is lost."""
    settings: str
    can: tuple[str, ...] = CAN_ALL
    """What it has a way of its own for."""
    arguments: tuple[str, ...] = ()
    """Words for the program, before the work."""
    share: float = 0.1
    """How many jobs a figure has, beside those of hybridq: slow peers would take minutes."""
    daemon: str | None = None
    """The server that it needs instead of Redis."""


PEERS: Final = (
    Peer(
        name="rq",
        program="rq_.py",
        packages=("rq==3.0.0", "redis", "hiredis"),
        delivery="≥1 (registry)",
        settings="SimpleWorker, no results; bulk: enqueue_many of 500",
        can=("enqueue one", "enqueue bulk", "drain one", "drain, 2 processes", "latency"),
    ),
    Peer(
        name="arq",
        program="arq_.py",
        packages=("arq==0.28.0", "hiredis", "uvloop"),
        delivery="≥1",
        settings="poll_delay 2 ms (default 500), no results, uvloop; bulk: 50 tasks",
    ),
    Peer(
        name="saq",
        program="saq_.py",
        packages=("saq[redis]==0.26.4", "hiredis", "uvloop", "typing_extensions"),
        delivery="≥1",
        settings="no results, uvloop; bulk: 50 tasks",
    ),
    Peer(
        name="dramatiq",
        program="dramatiq_.py",
        packages=("dramatiq[redis]==2.2.1", "hiredis"),
        delivery="≥1",
        settings="8 threads (default), no results",
        can=("enqueue one", "drain concurrent", "drain, 2 processes", "latency"),
    ),
    Peer(
        name="huey",
        program="huey_.py",
        packages=("huey==3.5.4", "redis", "hiredis"),
        delivery="≤1 (BRPOP)",
        settings="1 thread, no results",
        can=("enqueue one", "drain one", "drain, 2 processes", "latency"),
    ),
    Peer(
        name="tasktiger",
        program="tasktiger_.py",
        packages=("tasktiger==0.26.3", "hiredis"),
        delivery="≥1",
        settings="SyncExecutor",
        can=("enqueue one", "drain one", "drain, 2 processes", "latency"),
    ),
    Peer(
        name="bullmq",
        program="bullmq_.py",
        packages=("bullmq==3.4.4", "hiredis", "uvloop"),
        delivery="≥1 (lock)",
        settings="removeOnComplete, uvloop; bulk: addBulk of 500",
    ),
    Peer(
        name="BullMQ (Node)",
        program="bullmq_node.mjs",
        packages=("bullmq@6.7.0", "ioredis@6.0.0"),
        delivery="≥1 (lock)",
        settings="removeOnComplete; bulk: addBulk of 500",
        share=0.5,
    ),
    Peer(
        name="streaq",
        program="streaq_.py",
        packages=("streaq==7.2.0", "hiredis", "uvloop"),
        delivery="≥1 (stream)",
        settings="no results, uvloop; bulk: enqueue_many of 500",
    ),
    Peer(
        name="taskiq (list)",
        program="taskiq_.py",
        packages=("taskiq==0.13.0", "taskiq-redis==1.2.4", "hiredis", "uvloop"),
        delivery="≤1 (BRPOP)",
        settings="ListQueueBroker, no results, uvloop; bulk: 50 tasks",
        arguments=("list",),
    ),
    Peer(
        name="taskiq (stream)",
        program="taskiq_.py",
        packages=("taskiq==0.13.0", "taskiq-redis==1.2.4", "hiredis", "uvloop"),
        delivery="≥1 (stream)",
        settings="RedisStreamBroker, no results, uvloop; bulk: 50 tasks",
        arguments=("stream",),
    ),
    Peer(
        name="celery",
        program="celery_.py",
        packages=("celery[redis]==5.7.0", "hiredis"),
        delivery="≤1 (acknowledged early, the default)",
        settings="solo pool, no results, no gossip",
        can=("enqueue one", "drain one", "drain, 2 processes", "latency"),
    ),
    Peer(
        name="pydocket",
        program="pydocket_.py",
        packages=("pydocket==0.27.0", "hiredis", "uvloop"),
        delivery="≥1 (stream)",
        settings="checks every 5 ms (default 250), uvloop; bulk: add_many of 500",
    ),
    Peer(
        name="WakaQ",
        program="wakaq_.py",
        packages=("wakaq==4.0.4", "hiredis"),
        delivery="≤1 (BLPOP)",
        settings="concurrency 1",
        share=0.25,
        can=("enqueue one", "drain one", "drain, 2 processes", "latency"),
    ),
    Peer(
        name="beanstalkd",
        program="beanstalkd_.py",
        packages=("greenstalk==2.1.1",),
        delivery="≥1 (reserve, time to run)",
        settings="a server of its own, binlog with fsync each second; a lease for each job",
        can=("enqueue one", "drain one", "drain, 2 processes", "latency"),
        daemon="beanstalkd",
        share=0.25,
    ),
)
