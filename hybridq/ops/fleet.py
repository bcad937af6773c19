"""Agents and pools: what the fleet of a namespace keeps, and what a queue keeps of the agents of its pool.

The first half are scripts of the fleet's root; `enlist` and `figures` are a queue's. What takes both is a flow of
`hybridq._fleet`.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from .._units import ms_to_instant, to_ms, to_s
from ..agent_records import AgentRecord
from ..call import Call, Reply
from ..errors import (
    AgentNotRegistered,
    AgentTerminated,
    InvalidArgument,
    QueueFull,
    SessionSuperseded,
)
from ..health import Fleet, Signs, status_of
from ..keys import catalogue_root, fleet_root, validate_name
from ..retry import jitter
from ..scripts import load
from . import _args

__all__ = [
    "Begun",
    "Debt",
    "Figures",
    "Kept",
    "Page",
    "Scale",
    "Standing",
    "beat",
    "deregister",
    "describe",
    "enlist",
    "figures",
    "known",
    "lost",
    "page",
    "pool",
    "read_agent",
    "register",
    "scale",
    "scaled",
    "seen",
    "settle",
    "steer",
]

CAPACITY_MAX: Final = 1000
AGENTS_MOST: Final = 100_000
LABELS_MAX: Final = 64
FEATURES_MAX: Final = 32
METRICS_MAX: Final = 32
LEASES_LOOKED_AT: Final = 50
PAGE_MAX: Final = 300
LEASE_S_MAX: Final = 3600
_random = random.SystemRandom()
_labels = msgspec.json.Decoder(dict[str, str])
_metrics = msgspec.json.Decoder(dict[str, float])
_features = msgspec.json.Decoder(tuple[str, ...])


class _Struct(msgspec.Struct, frozen=True, kw_only=True):
    pass


class Kept(_Struct, frozen=True, kw_only=True):
    """An agent as its record has it, and what its status depends on beside that."""

    agent_id: str
    fields: Mapping[str, str]
    fleet: Fleet

    @property
    def pool(self) -> str:
        """Its pool."""
        return self.fields["pool"]

    @property
    def generation(self) -> int:
        """Of its session."""
        return int(self.fields["generation"])

    @property
    def draining(self) -> bool:
        """Whether it was told to drain."""
        return "draining" in self.fields

    @property
    def standing(self) -> tuple[int, int, bool]:
        """Return generation, capacity and drain as its pool's queue should know them."""
        here = "ended_ms" not in self.fields and "offline_ms" not in self.fields
        return self.generation, int(self.fields["capacity"]) if here else 0, self.draining


class Figures(_Struct, frozen=True, kw_only=True):
    """What a queue knows of one agent."""

    held: int = 0
    shortest_lease_ms: int = 0
    """0 when it holds none, or when leases were not looked at."""
    standing: tuple[int, int, bool] = (0, 0, False)
    """Generation, capacity and drain."""
    completed: int = 0
    failed: int = 0
    recent: str = ""
    """How its last 20 runs ended, the oldest first: `+` well, `-` not."""


class Begun(_Struct, frozen=True, kw_only=True):
    """Answer of register: the session, and the pools the agent left that have yet to be told."""

    session_id: str
    generation: int
    created: bool
    heartbeat_ms: int
    left: tuple[str, ...]


class Standing(_Struct, frozen=True, kw_only=True):
    """What a queue has to be told of an agent now; `pool` is where."""

    pool: str
    generation: int
    capacity: int = 0
    drain: bool = False
    left: tuple[str, ...] = ()


class Debt(_Struct, frozen=True, kw_only=True):
    """What a queue has yet to be told: take leases from the agent's sessions up to `generation`, as `how` says."""

    agent_id: str
    pool: str
    generation: int
    how: str
    until_ms: int = 0
    known: int = 0
    """The generation to tell; it may have grown since."""
    capacity: int = 0
    drain: bool = False


class Page(_Struct, frozen=True, kw_only=True):
    """One page of agents, and the name to go on after; empty at the end."""

    agents: tuple[Kept, ...]
    after: str


class Scale(_Struct, frozen=True, kw_only=True):
    """How many agents a pool should have; None where nobody said."""

    min: int | None = None
    max: int | None = None
    target: int | None = None


# -- the fleet ------------------------------------------------------------------------------------------------


def register(
    namespace: str,
    agent_id: str,
    *,
    pool: str,
    boot_id: str,
    session_id: str,
    version: str | None = None,
    labels: Mapping[str, str] | None = None,
    capacity: int = 1,
    features: Iterable[str] = (),
    rng: random.Random = _random,
    now_ms: int = 0,
) -> Call[Begun]:
    """Begin a session, or find the one that this boot has already. Raises `QueueFull` when the fleet is full."""
    if not _args.text("boot_id", boot_id, 128):
        raise InvalidArgument("boot_id", boot_id, "a text of 1 to 128 bytes, new with every start of the agent")
    entry = (
        validate_name("agent_id", agent_id),
        validate_name("pool", pool),
        boot_id,
        session_id,
        _args.text("version", version, 128),
        msgspec.json.encode(_label_map(labels or {})),
        msgspec.json.encode(_feature_list(features)),
        _args.integer("capacity", capacity, 1, CAPACITY_MAX),
        jitter(rng),
    )

    def decode(replies: Sequence[Reply]) -> Begun:
        reply = _reply("fleet/register", replies, agent_id)
        if reply[0] == b"FULL":
            raise QueueFull("the fleet", int(reply[1]))
        _, session, generation, created, heartbeat_ms, left = reply
        return Begun(
            session_id=session.decode(),
            generation=int(generation),
            created=bool(int(created)),
            heartbeat_ms=int(heartbeat_ms),
            left=tuple(left.decode().split()),
        )

    return _args.simple("fleet/register", fleet_root(namespace), now_ms, [entry], decode)


def beat(
    namespace: str,
    agent_id: str,
    session_id: str,
    *,
    metrics: Mapping[str, float] | None = None,
    recent: str = "",
    shortest_lease_ms: int = 0,
    rng: random.Random = _random,
    now_ms: int = 0,
) -> Call[Kept]:
    """Note that an agent is alive, and what it says of itself. Value: its record, with the interval it is to be told.

    Raises `AgentNotRegistered`, `SessionSuperseded`.
    """
    entry = (
        *_session(agent_id, session_id),
        b"" if metrics is None else msgspec.json.encode(_metric_map(metrics)),
        len(recent),
        recent.count("-"),
        shortest_lease_ms,
        jitter(rng),
    )
    decode = _kept_decoder("fleet/beat", agent_id)
    return _args.simple("fleet/beat", fleet_root(namespace), now_ms, [entry], decode)


def seen(namespace: str, agent_id: str, session_id: str, *, now_ms: int = 0) -> Call[Standing | None]:
    """Note that an agent claims. Value: what its queue has to be told when it was OFFLINE, else None."""

    def decode(replies: Sequence[Reply]) -> Standing | None:
        reply = _reply("fleet/seen", replies, agent_id)
        if reply[0] == b"SEEN":
            return None
        return Standing(
            pool=reply[1].decode(), generation=int(reply[2]), capacity=int(reply[3]), drain=reply[4] == b"1"
        )

    return _args.simple("fleet/seen", fleet_root(namespace), now_ms, [_session(agent_id, session_id)], decode)


def steer(
    namespace: str,
    agent_id: str,
    *,
    draining: bool,
    reason: str | None = None,
    by: str | None = None,
    now_ms: int = 0,
) -> Call[Standing]:
    """Have an agent drain, or take work again. Raises `AgentNotRegistered`, `AgentTerminated`."""
    entry = (
        validate_name("agent_id", agent_id),
        1 if draining else 0,
        _args.text("reason", reason),
        _args.text("by", by, 128),
    )

    def decode(replies: Sequence[Reply]) -> Standing:
        reply = _reply("fleet/steer", replies, agent_id)
        if reply[0] == b"TERMINATED":
            raise AgentTerminated(agent_id)
        return Standing(
            pool=reply[1].decode(), generation=int(reply[2]), capacity=int(reply[3]), drain=int(reply[4]) == 1
        )

    return _args.simple("fleet/steer", fleet_root(namespace), now_ms, [entry], decode)


def deregister(
    namespace: str, agent_id: str, *, session_id: str | None = None, reason: str | None = None, now_ms: int = 0
) -> Call[Standing]:
    """End an agent's session. Value: what its queues have to be told.

    Raises `AgentNotRegistered`, `SessionSuperseded`.
    """
    named = (validate_name("agent_id", agent_id), "") if session_id is None else _session(agent_id, session_id)
    entry = (*named, _args.text("reason", reason))

    def decode(replies: Sequence[Reply]) -> Standing:
        _, name, generation, left = _reply("fleet/deregister", replies, agent_id)
        return Standing(pool=name.decode(), generation=int(generation), left=tuple(left.decode().split()))

    return _args.simple("fleet/deregister", fleet_root(namespace), now_ms, [entry], decode)


def lost(namespace: str, *, now_ms: int = 0) -> Call[tuple[tuple[Debt, ...], bool]]:
    """Find agents that are OFFLINE, drop old records. Value: what queues are owed, and whether there is more to do."""

    def decode(replies: Sequence[Reply]) -> tuple[tuple[Debt, ...], bool]:
        _, rows, more = replies[0]
        return tuple(_debt(row) for row in rows), bool(int(more))

    return _args.simple("fleet/lost", fleet_root(namespace), now_ms, [], decode)


def _debt(row: Sequence[bytes]) -> Debt:
    agent_id, name, generation, how, until_ms, current, capacity, drain = (part.decode() for part in row)
    return Debt(
        agent_id=agent_id,
        pool=name,
        generation=int(generation),
        how=how,
        until_ms=int(until_ms),
        known=int(current),
        capacity=int(capacity),
        drain=drain == "1",
    )


def settle(namespace: str, debts: Sequence[Debt], *, now_ms: int = 0) -> Call[None]:
    """Note that queues were told what they were owed."""
    entries = [(debt.agent_id, debt.pool, debt.generation, debt.how, debt.until_ms) for debt in debts]
    return _args.simple("fleet/settle", fleet_root(namespace), now_ms, entries, lambda replies: None)


def describe(namespace: str, agent_id: str, *, now_ms: int = 0) -> Call[Kept]:
    """Read an agent's record. Raises `AgentNotRegistered`."""
    entry = (validate_name("agent_id", agent_id),)
    return _args.simple(
        "fleet/describe", fleet_root(namespace), now_ms, [entry], _kept_decoder("fleet/describe", agent_id)
    )


def page(namespace: str, *, pool: str = "", after: str = "", limit: int = PAGE_MAX, now_ms: int = 0) -> Call[Page]:
    """Read one page of records by name, of one pool or of all."""

    def decode(replies: Sequence[Reply]) -> Page:
        _, names, records, following, *about = replies[0]
        fleet = _fleet(about)
        # A record that went while its name stayed behind is no agent.
        kept = (
            Kept(agent_id=name.decode(), fields=_pairs(flat), fleet=fleet)
            for name, flat in zip(names, records, strict=True)
            if flat
        )
        return Page(agents=tuple(kept), after=following.decode())

    return _args.simple("fleet/list", fleet_root(namespace), now_ms, [], decode, common=(pool, after, limit))


def scale(
    namespace: str,
    pool: str,
    *,
    min: int | None = None,
    max: int | None = None,
    target: int | None = None,
    now_ms: int = 0,
) -> Call[Scale]:
    """Say how many agents a pool should have. Raises `InvalidArgument` unless min ≤ target ≤ max then."""
    numbers = {"min": min, "max": max, "target": target}
    said = [0 if n is None else _args.integer(name, n, 0, AGENTS_MOST) + 1 for name, n in numbers.items()]
    entry = (validate_name("pool", pool), *said)

    def decode(replies: Sequence[Reply]) -> Scale:
        tag, *values = _reply("fleet/scale", replies, "")
        if tag == b"FULL":
            raise QueueFull(f"pools of namespace {namespace}", int(values[0]))
        low, high, wanted = (None if value == b"-" else int(value) for value in values)
        if tag == b"CONTRADICTION":
            numbers_now = {"min": low or 0, "target": wanted, "max": AGENTS_MOST if high is None else high}
            raise InvalidArgument("scale", numbers_now, "such that min <= target <= max")
        return Scale(min=low, max=high, target=wanted)

    return _args.simple("fleet/scale", fleet_root(namespace), now_ms, [entry], decode)


def scaled(namespace: str, *, now_ms: int = 0) -> Call[dict[str, Scale]]:
    """Read how many agents pools should have, for all that were scaled."""

    def decode(replies: Sequence[Reply]) -> dict[str, Scale]:
        return {name: _scale(text) for name, text in _pairs(replies[0][1]).items()}

    return _args.simple("fleet/pools", fleet_root(namespace), now_ms, [], decode)


def pool(namespace: str, name: str, *, now_ms: int = 0) -> Call[tuple[Scale | None, int]]:
    """Read how many agents a pool should have, None if nobody said, and how many records of agents it has."""

    def decode(replies: Sequence[Reply]) -> tuple[Scale | None, int]:
        _, text, agents = replies[0]
        return _scale(text.decode()) if text else None, int(agents)

    return _args.simple("fleet/pool", fleet_root(namespace), now_ms, [(validate_name("pool", name),)], decode)


def known(namespace: str, queue: str) -> Call[bool]:
    """Tell whether a queue is in the catalogue of its namespace, without making it."""
    entry = (validate_name("queue", queue),)
    root = catalogue_root(namespace)
    return _args.simple("catalogue/find", root, 0, [entry], lambda replies: bool(replies[0][0] == b"THERE"))


# -- a queue's side ----------------------------------------------------------------------------------------------


def enlist(
    root: str,
    agent_id: str,
    *,
    generation: int,
    capacity: int,
    drain: bool = False,
    free: str = "none",
    until_ms: int = 0,
    now_ms: int = 0,
) -> Call[tuple[int, bool] | None]:
    """Tell a queue of an agent's session. Value: leases freed, and whether there are more; None: it knows a newer."""
    entry = (validate_name("agent_id", agent_id), generation, capacity, 1 if drain else 0, free, until_ms)

    def decode(replies: Sequence[Reply]) -> tuple[int, bool] | None:
        reply = _reply_of("enlist", replies)
        return None if reply[0] == b"SUPERSEDED" else (int(reply[1]), bool(int(reply[2])))

    return _args.simple("enlist", root, now_ms, [entry], decode)


def figures(root: str, agents: Sequence[str], *, leases: bool = False, now_ms: int = 0) -> Call[list[Figures]]:
    """Read what a queue knows of agents. `leases`: also the shortest of the leases each holds."""

    def decode(replies: Sequence[Reply]) -> list[Figures]:
        return [
            Figures(
                held=int(held),
                shortest_lease_ms=int(shortest),
                standing=(int(generation), int(capacity), drain == b"1"),
                completed=int(completed),
                failed=int(failed),
                recent=recent.decode(),
            )
            for _, held, shortest, _, generation, capacity, drain, completed, failed, recent in replies
        ]

    looked_at = LEASES_LOOKED_AT if leases else 0
    return _args.simple("agents", root, now_ms, [(agent,) for agent in agents], decode, common=(looked_at,))


# -- reading and checking ----------------------------------------------------------------------------------------


def read_agent(kept: Kept, figures: Figures) -> AgentRecord:
    """Return an agent as it is, from what the fleet and its queue keep."""
    fields = kept.fields

    def instant(name: str) -> Any:
        return ms_to_instant(int(fields[name])) if name in fields else None

    metrics = _metrics.decode(fields["metrics"]) if "metrics" in fields else None
    signs = Signs(
        seen_ms=int(fields["seen_ms"]),
        heartbeat_ms=int(fields["heartbeat_ms"]),
        metrics=metrics or {},
        recent=figures.recent,
        draining=kept.draining,
        ended="ended_ms" in fields,
        offline="offline_ms" in fields,
    )
    return AgentRecord(
        agent_id=kept.agent_id,
        pool=kept.pool,
        status=status_of(signs, kept.fleet),
        labels=_labels.decode(fields["labels"]),
        version=fields["version"] or None,
        capacity=int(fields["capacity"]),
        running=figures.held,
        jobs_completed=figures.completed,
        jobs_failed=figures.failed,
        last_heartbeat_at=instant("seen_ms"),
        registered_at=instant("registered_ms"),
        metrics=metrics,
        session_id=fields["session_id"],
        generation=kept.generation,
        boot_id=fields["boot_id"],
        features=_features.decode(fields["features"]),
        heartbeat_s=to_s(int(fields["heartbeat_ms"])),
        drain_reason=fields.get("drain_reason") or None,
        ended_at=instant("ended_ms"),
        end_reason=fields.get("end_reason") or None,
    )


def lease_ms(shortest_lease_s: float | None) -> int:
    """Return the shortest lease an agent says it holds, in milliseconds; 0 for none."""
    return 0 if shortest_lease_s is None else to_ms("shortest_lease_s", shortest_lease_s, 1, LEASE_S_MAX)


def _session(agent_id: str, session_id: str) -> tuple[str, str]:
    name = validate_name("agent_id", agent_id)
    if not isinstance(session_id, str) or len(session_id) != 32 or not session_id.isalnum() or not session_id.isascii():
        raise InvalidArgument("session_id", "that text", "32 hex digits, as registering returned them")
    return name, session_id


def _label_map(labels: Mapping[str, str]) -> dict[str, str]:
    if not isinstance(labels, Mapping) or len(labels) > LABELS_MAX:
        raise InvalidArgument("labels", labels, f"a mapping of at most {LABELS_MAX} texts")
    for key, value in labels.items():
        if not isinstance(key, str) or not key or not isinstance(value, str):
            raise InvalidArgument("labels", {key: value}, "pairs of texts, the first of 1 to 64 bytes")
        _args.text("labels", key, 64)
        _args.text(f"labels[{key}]", value, 128)
    return dict(labels)


def _feature_list(features: Iterable[str]) -> list[str]:
    listed = [] if isinstance(features, str) else list(features)
    if isinstance(features, str) or len(listed) > FEATURES_MAX or not all(isinstance(one, str) for one in listed):
        raise InvalidArgument("features", features, f"at most {FEATURES_MAX} texts")
    return [_args.text("features", one, 64) for one in listed]


def _metric_map(metrics: Mapping[str, float]) -> dict[str, float]:
    if not isinstance(metrics, Mapping) or len(metrics) > METRICS_MAX:
        raise InvalidArgument("metrics", metrics, f"a mapping of at most {METRICS_MAX} numbers")
    for name, value in metrics.items():
        _args.text("metrics", name, 128)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise InvalidArgument(f"metrics[{name}]", value, "a finite number")
    return {name: float(value) for name, value in metrics.items()}


def _reply(script: str, replies: Sequence[Reply], agent_id: str) -> Reply:
    reply = _reply_of(script, replies)
    match reply[0]:
        case b"NOT_REGISTERED":
            raise AgentNotRegistered(agent_id)
        case b"SUPERSEDED":
            raise SessionSuperseded(agent_id)
    return reply


def _reply_of(script: str, replies: Sequence[Reply]) -> Reply:
    reply = replies[0]
    _args.tag_of(load(script), reply, "")
    return reply


def _kept_decoder(script: str, agent_id: str) -> Any:
    def decode(replies: Sequence[Reply]) -> Kept:
        _, flat, *about = _reply(script, replies, agent_id)
        return Kept(agent_id=agent_id, fields=_pairs(flat), fleet=_fleet(about))

    return decode


def _fleet(about: Sequence[bytes]) -> Fleet:
    now_ms, resumed_ms, recent, recent_failed = map(int, about)
    return Fleet(now_ms=now_ms, resumed_ms=resumed_ms, recent=recent, recent_failed=recent_failed)


def _pairs(flat: Sequence[bytes]) -> dict[str, str]:
    return {flat[i].decode(): flat[i + 1].decode() for i in range(0, len(flat), 2)}


def _scale(text: str) -> Scale:
    low, high, wanted = (None if part == "-" else int(part) for part in text.split(" "))
    return Scale(min=low, max=high, target=wanted)
