"""Drives the Lua scripts themselves: arguments by name, answers as text, the time by hand, no library between.

A `Rig` is one queue on one server. Its clock stands still until a test moves it, so a test says to the millisecond
when each call comes.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

import redis

from hybridq import check, scripts
from hybridq.connect import SyncRedis
from hybridq.keys import queue_root
from hybridq.scripts import Script

NOW = 1_800_000_000_000
SPEC = "{}\npayload"
LEASE_MS = 30_000
JITTER_HALF = 1 << 19
"""Half of full jitter's range: with the default backoff of 5 s a first retry waits 2.5 s."""

DEFAULTS: dict[str, object] = {
    "atomic": 0, "strict": 0, "move": "",
    "digest": "digest-1", "spec": SPEC, "priority": "NORMAL", "lane": "any", "delay_ms": 0, "run_at_ms": 0,
    "max_attempts": 3, "retry_base_ms": 5000, "retry_max_ms": 300_000, "unique": "",
    "lanes_version": 0, "lanes": "any", "generation": 0, "request_id": "", "fresh": 1, "max": 1,
    "lease_ms": LEASE_MS, "start": 0, "holding": "",
    "exit_code": "", "retryable": 1, "jitter": JITTER_HALF, "failure": "", "result": "",
    "mode": "graceful", "grace_ms": 10_000, "only": "any", "reason": "", "by": "",
    "drain": 0, "free": "none", "until_ms": 0, "leases": 0,
    "index": "all", "status": "", "limit": 50, "after_score": "", "after_id": "", "minutes": 5,
}  # fmt: skip
"""What an argument is when a test does not say."""

Reply = list[Any]


@dataclass(frozen=True)
class Held:
    """One lease, as a claim's reply describes it."""

    job_id: str
    spec: str
    fence: int
    lease_id: str
    agent: str
    status: str
    priority: str
    attempt: int
    max_attempts: int
    deliveries: int
    generation: int
    lease_ms: int
    enqueued_ms: int

    @property
    def proof(self) -> dict[str, object]:
        """What a holder sends to prove the lease."""
        return {"job_id": self.job_id, "fence": self.fence, "lease_id": self.lease_id, "agent": self.agent}


class Rig:
    """One queue, its scripts, and a clock that only the test moves."""

    def __init__(
        self,
        client: SyncRedis,
        namespace: str,
        *,
        queue: str = "bench",
        shebang: bool = True,
        load: Callable[[str], Script] = scripts.load,
    ) -> None:
        self.client = client
        self.namespace = namespace
        self.queue = queue
        self.root = queue_root(namespace, queue)
        self.now = NOW
        self._shebang = shebang
        self._load = load
        self._lease_ids = itertools.count(1)

    def another(self, queue: str) -> Rig:
        """A rig of another queue in the same place, created."""
        rig = Rig(self.client, self.namespace, queue=queue, shebang=self._shebang, load=self._load)
        rig.run("create")
        return rig

    # -- calls -------------------------------------------------------------------------------------------

    def eval(self, verb: str, *args: object) -> Any:
        """Run a script with arguments as they are; bytes in its answer come back as text."""
        script = self._load(verb) if self._shebang else self._load(verb).without_shebang()
        words = ("EVALSHA", script.sha, 1, f"{self.root}:meta", *args)
        try:
            answer = self.client.execute_command(*words)  # type: ignore[no-untyped-call]
        except redis.exceptions.NoScriptError:
            self.client.script_load(script.text)
            answer = self.client.execute_command(*words)  # type: ignore[no-untyped-call]
        return _text(answer)

    def arguments(self, verb: str, *entries: Mapping[str, object], **common: object) -> list[object]:
        """The arguments of a call, in the order of the script's header."""
        header = self._load(verb).header
        said = {"now_ms": self.now, **common}
        unknown = said.keys() - {parameter.name for parameter in header.common} - {"now_ms"}
        assert not unknown, f"{verb} takes no {unknown}"
        args = [said.get(parameter.name, DEFAULTS.get(parameter.name)) for parameter in header.common]
        for entry in entries:
            unknown = entry.keys() - {parameter.name for parameter in header.each}
            assert not unknown, f"an entry of {verb} has no {unknown}"
            args += [entry.get(one.name, DEFAULTS.get(one.name)) for one in header.each]
        assert None not in args, f"{verb} needs more than {entries}"
        return args

    def run(self, verb: str, *entries: Mapping[str, object], **common: object) -> list[Any]:
        """Run a script; returns the answers of its entries."""
        answer: list[Any] = self.eval(verb, *self.arguments(verb, *entries, **common))
        return answer

    def one(self, verb: str, **entry: Any) -> Reply:
        """Run a script on one entry; returns its answer."""
        [reply] = self.run(verb, entry)
        return list(reply)

    # -- verbs -------------------------------------------------------------------------------------------

    def enqueue(self, *job_ids: str, **fields: Any) -> Reply:
        """Enqueue jobs that differ by id alone, in one call; returns the answer of the last."""
        replies = self.run("enqueue", *({"job_id": job_id, **fields} for job_id in job_ids))
        return list(replies[-1])

    def claim_reply(self, agent: str = "one", **fields: Any) -> Reply:
        """Claim; returns the answer as it is."""
        common = {name: fields.pop(name) for name in ("lanes", "lanes_version") if name in fields}
        lease_id = fields.pop("lease_id", self.new_lease_id())
        [reply] = self.run("claim", {"agent": agent, "lease_id": lease_id, **fields}, **common)
        return list(reply)

    def claim(self, agent: str = "one", **fields: Any) -> list[Held]:
        """Claim; returns the leases, none when the answer is EMPTY."""
        return leases_of(self.claim_reply(agent, **fields))

    def lease(self, agent: str = "one", *, job_id: str | None = None, **fields: Any) -> Held:
        """Claim and get one lease, of the job `job_id` when given."""
        [held] = self.claim(agent, **fields)
        assert job_id in (None, held.job_id), f"got {held.job_id}, not {job_id}"
        return held

    def running(self, agent: str = "one", *, job_id: str | None = None, **fields: Any) -> Held:
        """Claim one job and start it, which confirms the lease."""
        held = self.lease(agent, job_id=job_id, **fields)
        assert self.start(held)[0] == "STARTED"
        return held

    def start(self, held: Held) -> Reply:
        """Start a lease."""
        return self.one("start", **held.proof)

    def heartbeat(self, held: Held) -> Reply:
        """Renew a lease."""
        return self.one("heartbeat", **held.proof)

    def complete(self, held: Held, outcome: str = "success", **fields: Any) -> Reply:
        """End a lease with an outcome."""
        return self.one("complete", **{**held.proof, "outcome": outcome, **fields})

    def release(self, held: Held, **fields: Any) -> Reply:
        """Give a lease back."""
        return self.one("release", **{**held.proof, **fields})

    def append_log(self, held: Held, offset: int, data: str | bytes, *, sent: int | None = None) -> Reply:
        """Append to a job's log; `sent`: bytes of the data as it was sent, when something was taken out."""
        size = len(data.encode() if isinstance(data, str) else data) if sent is None else sent
        return self.one("append_log", **{**held.proof, "offset": offset, "sent": size, "data": data})

    def read_log(self, job_id: str, offset: int = 0, most: int = 1_000_000) -> Reply:
        """Read a part of a job's log."""
        return self.one("read_log", job_id=job_id, offset=offset, most=most)

    def log(self, job_id: str) -> str | None:
        """The log of a job as it is stored, None when there is none."""
        found = self.client.get(f"{self.root}:log:{job_id}")
        return None if found is None else _text(found)

    def cancel(self, job_id: str, **fields: Any) -> Reply:
        """Cancel a job."""
        return self.one("cancel", job_id=job_id, **fields)

    def replay(self, job_id: str, **fields: Any) -> Reply:
        """Give an ended job a new life."""
        return self.one("replay", job_id=job_id, **fields)

    def configure(self, **limits: int) -> None:
        """Change limits of the queue."""
        self.run("configure", *({"field": field, "value": value} for field, value in limits.items()))

    def upkeep(self) -> dict[str, int]:
        """One step of upkeep; returns what it did, by name."""
        [[tag, *numbers]] = self.run("upkeep")
        assert tag == "DID"
        names = ("requeued", "dead_lettered", "promoted", "trimmed", "more", "next_due_ms")
        return dict(zip(names, map(int, numbers), strict=True))

    def new_lease_id(self) -> str:
        """A lease id no other claim of this rig has."""
        return f"{next(self._lease_ids):032x}"

    # -- time --------------------------------------------------------------------------------------------

    def live(self, ms: int, *, step_ms: int = 10_000) -> None:
        """Let time pass while others are busy with the queue, so that no outage is seen in it."""
        end = self.now + ms
        while self.now < end:
            self.now = min(end, self.now + step_ms)
            self.one("heartbeat", job_id="nobody", fence=1, lease_id="0" * 32, agent="nobody")

    def lose(self, held: Held) -> dict[str, int]:
        """Let a lease run out and have it reaped; returns what upkeep did."""
        self.live(held.lease_ms, step_ms=max(1, held.lease_ms // 3))
        return self.upkeep()

    # -- what Redis holds --------------------------------------------------------------------------------

    def record(self, job_id: str) -> dict[str, str]:
        """The record of a job; empty when there is none."""
        return self.hash(f"job:{job_id}")

    def status(self, job_id: str) -> str | None:
        """The status of a job, None when it has no record."""
        return self.record(job_id).get("status")

    def hash(self, name: str) -> dict[str, str]:
        """A hash of the queue."""
        return {_text(k): _text(v) for k, v in self.client.hgetall(f"{self.root}:{name}").items()}

    def zset(self, name: str) -> dict[str, int]:
        """A sorted set of the queue, in its order."""
        pairs: Any = self.client.zrange(f"{self.root}:{name}", 0, -1, withscores=True)
        return {_text(member): int(score) for member, score in pairs}

    def line(self) -> list[str]:
        """The jobs that wait to be claimed, the next first."""
        return list(self.zset("ready:any"))

    def history(self, job_id: str) -> list[Any]:
        """The ended leases of a job, oldest first."""
        text = self.hash("result").get(job_id)
        return [json.loads(line) for line in text.split("\n")] if text else []

    def counters(self) -> dict[str, int]:
        """The counters that are not zero."""
        return {name: int(n) for name, n in self.hash("stats").items() if n != "0"}

    def events(self) -> list[str]:
        """What happened, oldest first, each as `kind id STATUS agent attempt`."""
        entries: list[Any] = self.client.xrange(f"{self.root}:events") or []
        return [f"{_text(kind)} {_text(said)}" for _, fields in entries for kind, said in fields.items()]

    def snapshot(self) -> dict[str, object]:
        """Everything the queue's keys hold, by key; two are equal when nothing changed in between."""
        return snapshot(self.client, self.root)

    def listen(self) -> Bell:
        """Subscribe to the queue's bell; close it, or use it as a context."""
        return Bell(self.client, f"{self.root}:bell")

    def check(self) -> None:
        """Hold the keyspace against the invariants."""
        check.keyspace(self.client, self.namespace, self.queue, now_ms=self.now).raise_if_broken()


class Bell:
    """Hears what is published on a channel."""

    def __init__(self, client: SyncRedis, channel: str) -> None:
        self._pubsub: Any = client.pubsub()  # type: ignore[no-untyped-call]
        self._channel = channel

    def __enter__(self) -> Bell:
        self._pubsub.subscribe(self._channel)
        subscribed = self._pubsub.get_message(timeout=5)
        assert subscribed is not None and subscribed["type"] == "subscribe"
        return self

    def __exit__(self, *exc: object) -> None:
        self._pubsub.close()

    def heard(self) -> list[str]:
        """The messages since the last time, in order.

        A message of our own ends the reading: what was published before it on the same channel has come before it.
        """
        client = getattr(self._pubsub, "cluster", None) or redis.Redis(connection_pool=self._pubsub.connection_pool)
        client.publish(self._channel, "end")
        messages: list[str] = []
        while (message := self._pubsub.get_message(timeout=5)) is not None:
            if message["data"] == b"end":
                return messages
            messages.append(_text(message["data"]))
        raise TimeoutError("the bell heard nothing for 5 s")


def leases_of(reply: Reply) -> list[Held]:
    """The leases in a claim's answer."""
    if reply[0] in ("EMPTY", "PAUSED"):
        return []
    assert reply[0] == "LEASED", reply
    names = [one.name for one in fields(Held)]
    return [Held(**dict(zip(names, map(_number_in, names, job), strict=True))) for job in reply[1]]


def _number_in(name: str, value: str) -> Any:
    return int(value) if Held.__annotations__[name] == "int" else value


def snapshot(client: SyncRedis, root: str) -> dict[str, object]:
    """What every key under `root` holds, read by its type: DUMP differs between engines, and fakeredis has none."""
    found: dict[str, object] = {}
    for key in sorted(client.scan_iter(match=f"{root}:*", count=1000)):
        match client.type(key):
            case b"hash":
                found[_text(key)] = dict(sorted(client.hgetall(key).items()))
            case b"zset":
                found[_text(key)] = client.zrange(key, 0, -1, withscores=True)
            case b"list":
                found[_text(key)] = client.lrange(key, 0, -1)
            case b"stream":
                found[_text(key)] = client.xrange(key)
            case b"string":
                found[_text(key)] = client.get(key)
            case other:
                raise AssertionError(f"{key!r} is a {other!r}: no key of a queue is")
    return found


def _text(value: Any) -> Any:
    """Text for bytes, also inside lists; a byte that is no UTF-8 shows as `\\x…`."""
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    return [_text(one) for one in value] if isinstance(value, (list, tuple)) else value
