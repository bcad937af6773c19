"""Every error hybridq raises.

```
HybridqError                       carries what is known as attributes; the message says what to do next
├── UsageError (ValueError)        the call is wrong; nothing was sent
│   ├── InvalidArgument            a value is out of range or of the wrong shape
│   ├── InvalidURL                 a Redis URL that cannot be used
│   ├── PayloadTooLarge            payload over its limit
│   ├── QueueClosed                the queue object was closed
│   └── WrongLoop                  an AsyncQueue in another event loop than its own
├── NotFound (LookupError)
│   ├── JobNotFound                no such job in this queue (any more)
│   ├── AgentNotRegistered         no such agent in this namespace (any more)
│   └── PoolNotFound               no such pool in this namespace
├── Conflict                       well-formed, but it contradicts what is stored
│   ├── BatchRefused               an atomic batch of which an entry failed
│   ├── JobConflict                the job id exists with other content
│   ├── UniqueTaken                another live job holds the unique key
│   ├── StaleLease                 the lease is no longer the job's current one
│   ├── NotLeaseHolder             the current lease belongs to another agent
│   ├── IllegalTransition          the verb is not allowed from this status
│   ├── AlreadyTerminal            the job has ended
│   ├── NotTerminal                the job has not ended yet
│   ├── OutcomeConflict            the lease was completed before, with another outcome
│   ├── OffsetGap                  a piece of a log does not follow what the lease said before
│   ├── AgentTerminated            the agent's session was ended; it has to register again
│   ├── JobCancelled               the job was cancelled, before its start or since
│   └── CredentialConflict         the credential's id exists with other content, or is bound to another
├── Refused                        the queue will not take the call now
│   ├── AccessFull                 as many credentials or rules are there as there may be
│   ├── CredentialRefused          a credential that is unknown, expired, revoked, or another's
│   │   ├── RegistrationSpent      every use of a registration key is spent
│   │   └── RenewalReused          a renewal token came twice: its family was revoked
│   ├── QueueFull                  the queue, or Redis' memory, is full
│   ├── AgentDraining              the agent may finish work, not claim more
│   └── SessionSuperseded          a newer session of the same agent exists
├── SlowFollower                   a follower of events did not keep up, and was dropped
├── OutcomeUnknown                 the call may or may not have happened: retry with the same id
└── ServerTrouble                  Redis or the installation is at fault
    ├── RedisUnavailable           no connection; nothing was sent
    ├── QueueLost                  the queue's records vanished while it was in use
    ├── SchemaMismatch             the keyspace was written by another version
    ├── ScriptFailed               a script stopped with an error
    │   └── EntryInDoubt           one entry of a batch stopped half way
    ├── ScriptsMissing             the Lua files were not found
    ├── LanesChanged               label lanes moved; the library reloads and retries
    ├── EmbeddedUnavailable        the private server could not be started
    └── EngineMismatch             the data directory belongs to another engine
```

`Retry` and `Reject` are signals that a task raises; they are not errors of hybridq. `check.InvariantBroken`, a
`HybridqError` too, stands with the checker.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = [
    "AccessFull",
    "AgentDraining",
    "AgentNotRegistered",
    "AgentTerminated",
    "AlreadyTerminal",
    "BatchRefused",
    "Conflict",
    "CredentialConflict",
    "CredentialRefused",
    "EmbeddedUnavailable",
    "EngineMismatch",
    "EntryInDoubt",
    "HybridqError",
    "IllegalTransition",
    "InvalidArgument",
    "InvalidURL",
    "JobCancelled",
    "JobConflict",
    "JobNotFound",
    "LanesChanged",
    "NotFound",
    "NotLeaseHolder",
    "NotTerminal",
    "OffsetGap",
    "OutcomeConflict",
    "OutcomeUnknown",
    "PayloadTooLarge",
    "PoolNotFound",
    "QueueClosed",
    "QueueFull",
    "QueueLost",
    "RedisUnavailable",
    "Refused",
    "RegistrationSpent",
    "Reject",
    "RenewalReused",
    "Retry",
    "SchemaMismatch",
    "ScriptFailed",
    "ScriptsMissing",
    "ServerTrouble",
    "SessionSuperseded",
    "SlowFollower",
    "StaleLease",
    "UniqueTaken",
    "UsageError",
    "WrongLoop",
]


class HybridqError(Exception):
    """Root of everything hybridq raises on its own account."""


# -- the call is wrong ---------------------------------------------------------------------------


class UsageError(HybridqError, ValueError):
    """The call itself is wrong: nothing was sent, nothing was written. Mend the call."""


class InvalidArgument(UsageError):
    """An argument is out of range or of the wrong shape; `allowed` says what would do."""

    def __init__(self, name: str, value: object, allowed: str) -> None:
        self.name, self.value, self.allowed = name, value, allowed
        super().__init__(f"{name}: {_short(value)} is not allowed; it must be {allowed}")


class InvalidURL(UsageError):
    """A Redis URL that cannot be used. `url` never holds credentials."""

    def __init__(self, url: str, reason: str) -> None:
        self.url, self.reason = url, reason
        super().__init__(f"{url}: {reason}")


class PayloadTooLarge(UsageError):
    """The encoded payload, result or error is over its limit (sizes in bytes)."""

    def __init__(self, what: str, size_bytes: int, limit_bytes: int) -> None:
        self.what, self.size_bytes, self.limit_bytes = what, size_bytes, limit_bytes
        super().__init__(
            f"{what}: {size_bytes} bytes are over the limit of {limit_bytes}; store it elsewhere and send a reference"
        )


class QueueClosed(UsageError):
    """A call on a queue object after `close()`. Open a new one."""

    def __init__(self, queue: str) -> None:
        self.queue = queue
        super().__init__(f"queue {queue!r} was closed; open a new one")


class WrongLoop(UsageError):
    """An `AsyncQueue` was used in another event loop than that of its first call. Make one for each loop."""

    def __init__(self, queue: str) -> None:
        self.queue = queue
        super().__init__(f"queue {queue!r} belongs to another event loop; open one in each loop")


# -- not there ------------------------------------------------------------------------------------


class NotFound(HybridqError, LookupError):
    """What was asked for does not exist."""


class JobNotFound(NotFound):
    """No job of this id is in the queue: never enqueued, purged, or past its retention."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        super().__init__(f"job {job_id}: not found; it was never enqueued here, or is past its retention")


# -- contradicts what is stored ----------------------------------------------------------------------


class AgentNotRegistered(NotFound):
    """No agent of this name is registered in the namespace; it has to register first."""

    def __init__(self, agent: str) -> None:
        self.agent = agent
        super().__init__(f"agent {agent!r} is not registered; register it first")


class PoolNotFound(NotFound):
    """There is no pool of this name: no queue, no agent that registered in it, and nobody scaled it."""

    def __init__(self, pool: str) -> None:
        self.pool = pool
        super().__init__(f"pool {pool!r} does not exist; enqueue a job or register an agent in it")


class Conflict(HybridqError):
    """The call is well-formed and contradicts what Redis holds; nothing was changed."""


class BatchRefused(Conflict):
    """An atomic batch of which entries failed, so none was taken in. `errors`: place in the batch → what is wrong."""

    def __init__(self, errors: Mapping[int, HybridqError]) -> None:
        self.errors = dict(errors)
        first = min(self.errors)
        super().__init__(f"none of the batch was taken in: entry {first}: {self.errors[first]}")


class JobConflict(Conflict):
    """A job of this id exists with other content. Take another id, or send the same content."""

    def __init__(self, job_id: str, status: str) -> None:
        self.job_id, self.status = job_id, status
        super().__init__(f"job {job_id}: exists ({status}) with other content; use another job id")


class UniqueTaken(Conflict):
    """A live job holds the unique key. `existing_job_id` is that job."""

    def __init__(self, job_id: str, existing_job_id: str) -> None:
        self.job_id, self.existing_job_id = job_id, existing_job_id
        super().__init__(f"job {job_id}: its unique key is held by job {existing_job_id} until that one ends")


class StaleLease(Conflict):
    """The lease ended or was given to another: stop the work, its result no longer counts."""

    def __init__(self, job_id: str, fence: int, status: str) -> None:
        self.job_id, self.fence, self.status = job_id, fence, status
        super().__init__(
            f"job {job_id}: the lease with fence {fence} is no longer current (the job is {status}); stop the work"
        )


class NotLeaseHolder(Conflict):
    """The lease is current, and belongs to another agent."""

    def __init__(self, job_id: str, fence: int) -> None:
        self.job_id, self.fence = job_id, fence
        super().__init__(f"job {job_id}: the lease with fence {fence} belongs to another agent")


class IllegalTransition(Conflict):
    """The verb is not allowed from the job's status; `allowed` lists the statuses it is allowed from."""

    def __init__(self, job_id: str, verb: str, status: str, allowed: Sequence[str]) -> None:
        self.job_id, self.verb, self.status, self.allowed = job_id, verb, status, tuple(allowed)
        super().__init__(f"job {job_id}: {verb} is not allowed while it is {status}; only from {', '.join(allowed)}")


class AlreadyTerminal(Conflict):
    """The job has ended, so it can neither be cancelled nor moved. `retry` gives it a new life."""

    def __init__(self, job_id: str, status: str) -> None:
        self.job_id, self.status = job_id, status
        super().__init__(f"job {job_id}: already {status}; use retry to run it again")


class NotTerminal(Conflict):
    """Only a job that failed, was cancelled or is a dead letter can be retried."""

    def __init__(self, job_id: str, status: str) -> None:
        self.job_id, self.status = job_id, status
        super().__init__(f"job {job_id}: is {status}; only FAILED, CANCELLED or DEAD_LETTERED jobs can be retried")


class OutcomeConflict(Conflict):
    """This lease was completed before, with another outcome; the first one stands."""

    def __init__(self, job_id: str, fence: int, outcome: str) -> None:
        self.job_id, self.fence, self.outcome = job_id, fence, outcome
        super().__init__(f"job {job_id}: the lease with fence {fence} already reported {outcome!r}; that stands")


class OffsetGap(Conflict):
    """A piece of a log does not follow what its lease said before; nothing was stored. Go on at `expected`."""

    def __init__(self, job_id: str, fence: int, expected: int) -> None:
        self.job_id, self.fence, self.expected = job_id, fence, expected
        super().__init__(f"job {job_id}: the log of the lease with fence {fence} goes on at byte {expected}")


class AgentTerminated(Conflict):
    """The agent's session was ended, so it can neither drain nor take work. A new registration brings it back."""

    def __init__(self, agent: str) -> None:
        self.agent = agent
        super().__init__(f"agent {agent!r}: its session was ended; it has to register again")


class JobCancelled(Conflict):
    """The job was cancelled: do not run it, or stop running it."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        super().__init__(f"job {job_id}: was cancelled; do not run it, or stop")


class CredentialConflict(Conflict):
    """A credential of this id was made for something else (`reason`). Take another id, or ask for the same again."""

    def __init__(self, credential_id: str, reason: str) -> None:
        self.credential_id, self.reason = credential_id, reason
        super().__init__(f"credential {credential_id}: {reason}")


# -- not now --------------------------------------------------------------------------------------------


class Refused(HybridqError):
    """The queue will not take this call now; nothing was changed."""


class QueueFull(Refused):
    """The queue is at `limit` waiting jobs (0: Redis itself is out of memory). Drain, or raise the limit."""

    def __init__(self, queue: str, limit: int) -> None:
        self.queue, self.limit = queue, limit
        what = f"holds its limit of {limit} waiting jobs" if limit else "cannot grow: Redis is out of memory"
        super().__init__(f"queue {queue!r} {what}; claims and completions go on, enqueue again later")


class AgentDraining(Refused):
    """The agent is draining: it may finish what it holds, and claims nothing more."""

    def __init__(self, agent: str) -> None:
        self.agent = agent
        super().__init__(f"agent {agent!r} is draining; finish what it holds, do not claim")


class SessionSuperseded(Refused):
    """A newer session of the same agent exists; this one has no leases any more. Stop."""

    def __init__(self, agent: str) -> None:
        self.agent = agent
        super().__init__(f"agent {agent!r}: a newer session took over; stop this one")


class AccessFull(Refused):
    """There are as many of `what` as there may be, `limit`. Revoke or delete some that nobody needs."""

    def __init__(self, what: str, limit: int) -> None:
        self.what, self.limit = what, limit
        super().__init__(f"{what}: {limit} are there, which is the limit; revoke or delete some")


class CredentialRefused(Refused):
    """A credential does not do what was asked of it: it is unknown, expired, revoked, or another agent's (`reason`)."""

    def __init__(self, credential_id: str, reason: str) -> None:
        self.credential_id, self.reason = credential_id, reason
        super().__init__(f"credential {credential_id} is refused: {reason}; get a new one")


class RegistrationSpent(CredentialRefused):
    """Every use of this registration key is spent. Make another."""


class RenewalReused(CredentialRefused):
    """A renewal token that was used up came again, so two hold it: its whole family was revoked. Register anew."""


# -- maybe -----------------------------------------------------------------------------------------------


class SlowFollower(HybridqError):
    """Events waited for this follower, and it took none for `slow_s` seconds. Follow again from its last event."""

    def __init__(self, slow_s: float) -> None:
        self.slow_s = slow_s
        super().__init__(f"no event was taken for {slow_s} s while many waited; follow again from the last event's id")


class OutcomeUnknown(HybridqError):
    """The reply was lost: the call happened or it did not. The same call with the same id gets the first answer."""

    def __init__(self, verb: str, reason: str) -> None:
        self.verb, self.reason = verb, reason
        super().__init__(f"{verb}: outcome unknown ({reason}); repeat it with the same ids to get the first answer")


# -- Redis or the installation -----------------------------------------------------------------------------


class ServerTrouble(HybridqError):
    """Redis, or this installation, is at fault."""


class RedisUnavailable(ServerTrouble):
    """No connection to Redis; the call was not carried out. `url` never holds credentials."""

    def __init__(self, url: str, reason: str) -> None:
        self.url, self.reason = url, reason
        super().__init__(f"Redis at {url} is not available: {reason}")


class QueueLost(ServerTrouble):
    """The queue was there and its records are gone: Redis was flushed, or the URL leads elsewhere now."""

    def __init__(self, queue: str) -> None:
        self.queue = queue
        super().__init__(
            f"queue {queue!r} vanished from Redis while in use (flushed? another server?); "
            "restore a backup, or open the queue anew to begin empty"
        )


class SchemaMismatch(ServerTrouble):
    """The keyspace was written by another version of hybridq."""

    def __init__(self, queue: str, found: str, wanted: str) -> None:
        self.queue, self.found, self.wanted = queue, found, wanted
        super().__init__(f"queue {queue!r} has schema {found}, this library needs {wanted}; use the matching version")


class ScriptFailed(ServerTrouble):
    """A Lua script stopped with an error; `line` is a place in the Lua sources, such as `lua/claim.lua:23`."""

    def __init__(self, script: str, line: str, reason: str) -> None:
        self.script, self.line, self.reason = script, line, reason
        super().__init__(f"script {script} failed at {line}: {reason}")


class EntryInDoubt(ScriptFailed):
    """One entry of a batch stopped with an error inside Redis; run `hybridq check` on the queue."""


class ScriptsMissing(ServerTrouble):
    """The Lua sources are neither packaged nor beside the library."""

    def __init__(self, looked_in: Sequence[Path]) -> None:
        self.looked_in = tuple(looked_in)
        super().__init__(f"Lua scripts not found in {' or '.join(map(str, looked_in))}; reinstall hybridq")


class LanesChanged(ServerTrouble):
    """The label lanes of the queue changed since they were read; read them again and repeat."""

    def __init__(self, queue: str, lanes_version: int) -> None:
        self.queue, self.lanes_version = queue, lanes_version
        super().__init__(f"queue {queue!r}: its lanes changed (version {lanes_version}); repeat the claim")


class EmbeddedUnavailable(ServerTrouble):
    """The private server of a data directory could not be started or reached."""

    def __init__(self, reason: str, advice: str) -> None:
        self.reason, self.advice = reason, advice
        super().__init__(f"embedded server: {reason}; {advice}")


class EngineMismatch(ServerTrouble):
    """The data directory was written by an engine that the one found here cannot stand in for."""

    def __init__(self, data_dir: Path, recorded: str, found: str) -> None:
        self.data_dir, self.recorded, self.found = data_dir, recorded, found
        super().__init__(
            f"{data_dir} holds data of {recorded}, and only {found} is here; "
            f"install {recorded}, or choose another data directory"
        )


# -- signals -------------------------------------------------------------------------------------------------


class Retry(Exception):
    """Raised by a task: try again after `delay_s` seconds (None: the job's own backoff)."""

    def __init__(self, delay_s: float | None = None, reason: str = "") -> None:
        self.delay_s, self.reason = delay_s, reason
        super().__init__(reason or "retry")


class Reject(Exception):
    """Raised by a task: the job can never succeed, do not try again (status FAILED)."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
