"""The access records on any engine, under a root of the test's own, with a clock that only the test moves."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import redis

from hybridq import Access, Admission, AgentTokens, Backend, Credential
from hybridq.connect import AsyncRedis, SyncRedis
from hybridq.ops import access as ops
from hybridq.scripts import Script, load
from tests.contract.harness import Rig, snapshot

NOW = 1_800_000_000_000
MINUTE_MS = 60_000
DAY_MS = 86_400_000
BOOT = {"boot_id": "boot-1", "session_id": "s-1", "generation": 1}


class Given:
    """A connector of a client that is there; closing what runs on it leaves the client open."""

    safe_url = "given://client"

    def __init__(self, client: SyncRedis, *, shebang: bool) -> None:
        self._client = client
        self.knows_shebang = shebang

    def sync(self) -> SyncRedis:
        return self._client

    def sync_bell(self) -> SyncRedis:
        raise NotImplementedError

    def aio(self) -> AsyncRedis:
        raise NotImplementedError

    def aio_bell(self) -> AsyncRedis:
        raise NotImplementedError


class AccessRig:
    """`access` is the library over this test's own root; `eval` goes past it."""

    def __init__(self, client: SyncRedis, namespace: str, *, shebang: bool = True) -> None:
        self.client = client
        self.namespace = namespace
        self.root = f"hq:{{{namespace}/sys/auth}}"
        backend = Backend(Given(client, shebang=shebang))
        self.access = Access(redis=backend)
        self.access._root = self.root
        backend.place("access", self.root, functools.partial(ops.found, self.root))
        self.now = NOW
        self._scripts = Rig(client, namespace, shebang=shebang)
        self._scripts.root = self.root

    @property
    def now(self) -> int:
        """Epoch ms at which the next call comes."""
        return self.access._now_ms

    @now.setter
    def now(self, ms: int) -> None:
        self.access._now_ms = ms

    # -- what tests say often ----------------------------------------------------------------------------

    def admit(self, text: str | None, **fields: Any) -> Admission:
        """Admit a call that nothing limits unless the test says so."""
        said = {"peer": "192.0.2.1", "rate_class": "read", "limit_per_second": 0, **fields}
        return self.access.admit(text, **said)

    def who(self, text: str) -> Credential:
        """The credential of a text that has to be valid."""
        admission = self.admit(text)
        assert admission.credential is not None, admission.reason
        return admission.credential

    def reason(self, text: str) -> str | None:
        """Why a text is refused."""
        admission = self.admit(text)
        assert (admission.credential is None) == (admission.reason is not None)
        return admission.reason

    def key(self, **fields: Any) -> str:
        """The text of a new API key."""
        said = {"scopes": ["queue:read"], "namespace": self.namespace, **fields}
        text = self.access.create_key(said.pop("name", "ci"), **said).text
        assert text is not None
        return text

    def registration(self, **fields: Any) -> str:
        """The text of a new registration key."""
        text = self.access.create_registration_key(self.namespace, fields.pop("pool", "linux"), **fields).text
        assert text is not None
        return text

    def enrol(self, agent_id: str = "one", **fields: Any) -> AgentTokens:
        """The first tokens of an agent."""
        return self.access.enrol(agent_id, **{**BOOT, "pool": "linux", "namespace": self.namespace, **fields})

    def rotate(self, text: str, agent_id: str = "one", **fields: Any) -> AgentTokens:
        """The next tokens of an agent."""
        return self.access.rotate_renewal(self.who(text), agent_id=agent_id, **{**BOOT, **fields})

    # -- what Redis holds --------------------------------------------------------------------------------

    def hash(self, name: str) -> dict[str, str]:
        """A hash of the records."""
        return {k.decode(): v.decode() for k, v in self.client.hgetall(f"{self.root}:{name}").items()}

    def ttl_ms(self, name: str) -> int:
        """Time to live of a key, -1 when it has none, -2 when there is no key."""
        return int(self.client.pttl(f"{self.root}:{name}"))

    def names(self) -> list[str]:
        """All keys, without the root."""
        found = self.client.scan_iter(match=f"{self.root}:*", count=1000)
        return sorted(key.decode().removeprefix(f"{self.root}:") for key in found)

    def snapshot(self) -> dict[str, object]:
        """Everything the keys hold."""
        return snapshot(self.client, self.root)

    def snapshot_of_all(self) -> dict[bytes, object]:
        """What every key holds, whatever its type."""
        found: dict[bytes, object] = {}
        for key in self.client.scan_iter(match=f"{self.root}:*", count=1000):
            found[key] = self.client.dump(key) if self.client.type(key) != b"hash" else self.client.hgetall(key)
        return found

    def audit(self) -> list[tuple[str, str, str, str]]:
        """The audit, oldest first: actor, action, object, outcome."""
        page = self.access.audit_page(self.namespace)
        return [(one.actor, one.action, one.object, one.outcome) for one in reversed(page.items)]

    # -- scripts -----------------------------------------------------------------------------------------

    def eval(self, verb: str, *args: object) -> Any:
        """Run a script with arguments as they are."""
        return self._scripts.eval(verb, *args)

    def refusal(self, verb: str, args: list[object]) -> str:
        """Run a script that has to refuse its arguments; returns how."""
        try:
            answer = self.eval(verb, *args)
        except redis.exceptions.ResponseError as problem:
            return str(problem)
        raise AssertionError(f"{verb} took {args} and answered {answer}")


@dataclass(frozen=True)
class Mutant:
    """A rule taken out of the scripts: `old` stands in the composed text of at least one, `new` takes its place."""

    sentence: str
    guard: Any
    """The tests that have to notice."""
    old: str
    new: str = ""

    def load(self, name: str) -> Script:
        """Return a script without the rule."""
        script = load(name)
        text = script.text.replace(self.old, self.new)
        return replace(script, text=text, sha=hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


def with_scripts(monkeypatch: Any, source: Callable[[str], Script] = load) -> None:
    """Have the library take its scripts from `source`."""
    monkeypatch.setattr("hybridq.ops.access.load", source)
    monkeypatch.setattr("hybridq.ops._args.load", source)
