"""From a claimed job to the work in it: opened, verified, and of the one form that an agent runs.

The payload comes from a server that may be anybody's, so it is read as strictly as it can be: what is not known is
refused by name rather than passed over, and no message says more of it than names of fields.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from .. import guard
from .._units import YEAR_S
from .secrets.ref import SecretRef
from .trust.canonical import NotPortable, parse
from .trust.rejected import Rejected

if TYPE_CHECKING:
    from ._wire import ClaimedJob
    from .trust import Trust

__all__ = ["Git", "Rejected", "SecretRef", "Step", "Work", "checked", "work_of"]

PAYLOAD_BYTES_MAX: Final = 1024 * 1024

Env = Annotated[
    dict[
        Annotated[str, Meta(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,255}\Z")],
        Annotated[str, Meta(max_length=65_536)] | SecretRef,
    ],
    Meta(max_length=1000),
]
Line = r"^[^\x00-\x1f\x7f]*\Z"


class Step(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One step: `run` is handed to `shell`, in `working_directory` of the workspace, with `env` on top of the job's."""

    name: Annotated[str, Meta(min_length=1, max_length=128, pattern=Line)]
    run: Annotated[str, Meta(min_length=1, max_length=65_536)]
    shell: (
        Annotated[str, Meta(min_length=1, max_length=64)]
        | Annotated[tuple[Annotated[str, Meta(max_length=1024)], ...], Meta(min_length=1, max_length=64)]
        | None
    ) = None
    env: Env = {}
    timeout_seconds: Annotated[float, Meta(gt=0, le=YEAR_S)] | None = None
    working_directory: Annotated[str, Meta(min_length=1, max_length=1024, pattern=Line)] | None = None
    if_: Literal["success", "failure", "always", "cancelled"] | None = msgspec.field(name="if", default=None)
    """When the step runs, by how those before it went; None: `success`."""


class Git(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is checked out before the first step."""

    repo: Annotated[str, Meta(min_length=1, max_length=2048, pattern=Line)]
    ref: Annotated[str, Meta(min_length=1, max_length=256, pattern=Line)] | None = None
    commit_sha: Annotated[str, Meta(pattern=r"^[0-9a-fA-F]{7,64}\Z")] | None = None
    commit_message: Annotated[str, Meta(max_length=16_384)] | None = None
    author: Annotated[str, Meta(max_length=256)] | None = None


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """What a job asks of an agent."""

    steps: tuple[Step, ...]
    git: Git | None = None
    env: dict[str, str | SecretRef] = {}
    signed_by: str | None = None
    """Id of the key that signed it; None: nobody did."""
    sealed: bool = False
    """Whether it came sealed: the texts of its environments are secrets too."""

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Names alone: what came sealed must not stand in a log."""
        names = [step.name for step in self.steps]
        return [("steps", names), ("signed_by", self.signed_by), ("sealed", self.sealed)]

    def __repr__(self) -> str:
        return f"Work({', '.join(f'{name}={value!r}' for name, value in self.__rich_repr__())})"


class _Plain(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    steps: Annotated[tuple[Step, ...], Meta(max_length=256)] = ()
    git: Git | None = None
    env: Env = {}


def work_of(job: ClaimedJob, trust: Trust) -> Work:
    """Return what `job` asks for. A signature that is bound to no job id is spent with it.

    Raises `Rejected` with a stable code: the job is wrong, and will be on every agent that trusts the same.
    Raises `trust.ReplaysUnavailable` when this agent cannot remember what it has to: its own trouble.
    """
    if job.id != f"{job.pool}~{job.job_id}":
        raise Rejected("malformed_job", "the job's id does not say its pool and job id")
    if trust.pools is not None and job.pool not in trust.pools:
        raise Rejected("pool_not_served", "the job is of a pool that this agent does not serve")
    value = _read(job)
    sealed = _alone(value, "sealed")
    if sealed is not None:
        value = trust.opened(sealed, pool=job.pool, job_id=job.job_id)
    text = _alone(value, "signed")
    if text is None:
        if trust.require_signature:
            raise Rejected("signature_required", "this agent runs signed jobs only")
        return _work(value, sealed=sealed is not None)
    signed = trust.verified(text, pool=job.pool, job_id=job.job_id)
    work = _work(signed.work, sealed=sealed is not None, signed_by=signed.key_id)
    # Last, so that a job which is refused for another reason leaves no trace.
    trust.spend(signed, job=job.id)
    return work


def checked(value: Any) -> Work:
    """Return the work in a plain payload, `{steps, git?, env?}`. Raises `Rejected`."""
    return _work(value)


def _read(job: ClaimedJob) -> Any:
    if job.payload_encoding is not None:
        raise _no_steps()
    raw = bytes(job.payload)
    if len(raw) > PAYLOAD_BYTES_MAX:
        raise Rejected("malformed_payload", f"the payload is larger than {PAYLOAD_BYTES_MAX} bytes")
    try:
        return parse(raw)
    except NotPortable as wrong:
        raise Rejected("malformed_payload", f"the payload is {wrong}") from None


def _alone(value: Any, name: str) -> str | None:
    """Return the text of `{name: text}`; beside anything else it is a field like any unknown one."""
    if isinstance(value, dict) and value.keys() == {name}:
        text = value[name]
        if not isinstance(text, str):
            raise Rejected("malformed_payload", f"{name} must be a text")
        return text
    return None


def _work(value: Any, *, sealed: bool = False, signed_by: str | None = None) -> Work:
    if not isinstance(value, dict):
        raise _no_steps()
    try:
        plain = msgspec.convert(_without_nulls(value), _Plain)
    except msgspec.ValidationError as wrong:
        raise _rejected(value, str(wrong)) from None
    if not plain.steps:
        raise _no_steps()
    if _has_nul(value):
        raise Rejected("malformed_payload", "a text holds a NUL character, which neither files nor programs take")
    return Work(steps=plain.steps, git=plain.git, env=plain.env, signed_by=signed_by, sealed=sealed)


def _no_steps() -> Rejected:
    return Rejected("no_steps", "the payload has no steps: it is not work for this agent")


def _rejected(value: dict[str, Any], wrong: str) -> Rejected:
    """Put into our words what msgspec says: it names fields and places, and no values."""
    place = _PLACE.search(wrong)
    where = place[1] if place else ""
    unknown = _UNKNOWN.match(wrong)
    if unknown:
        if not where and not value.get("steps"):
            return _no_steps()
        name = guard.redact(unknown[1])[0][:80]
        return Rejected(
            "unknown_field", f"{where.lstrip('.') or 'the payload'} has a field that is not known: {name!r}"
        )
    steps = value.get("steps")
    if isinstance(steps, list) and len(steps) > 256:
        return Rejected("too_many_steps", "the job has more than 256 steps")
    part = re.match(r"\.(steps|git|env)", where)
    code = f"malformed_{part[1]}" if part else "malformed_payload"
    said = next((words for sign, words in _WORDS if sign in wrong), _PLACE.sub("", wrong))
    return Rejected(code, said + (f" in {where.lstrip('.')}" if where else ""))


_PLACE: Final = re.compile(r" - at (?:`key` in )?`\$([^`]*)`\Z")
_UNKNOWN: Final = re.compile(r"Object contains unknown field `(.*?)`(?: - at `[^`]*`)?\Z", re.DOTALL)
_WORDS: Final = (
    (" - at `key` in ", "a variable's name must be letters, digits and _, not beginning with a digit"),
    ("Invalid enum value", "one of success, failure, always, cancelled was expected"),
    ("matching regex", "a text holds what must not stand there"),
)
"""Instead of what holds a pattern, or the value itself."""


def _without_nulls(value: dict[str, Any]) -> dict[str, Any]:
    """Return the payload without fields that are null: unset is null in this contract."""
    found = _set(value)
    if isinstance(found.get("steps"), list):
        found["steps"] = [_set(step) if isinstance(step, dict) else step for step in found["steps"]]
    if isinstance(found.get("git"), dict):
        found["git"] = _set(found["git"])
    return found


def _set(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _has_nul(value: Any) -> bool:
    todo = [value]
    for node in todo:
        if isinstance(node, str) and "\0" in node:
            return True
        todo += node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    return False
