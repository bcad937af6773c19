"""Secrets by reference: resolved on the agent alone, when its operator allows the job's pool that reference.

The rules are asked about every reference of a job before any provider is asked about one. What a provider finds leaves
this package in a `ResolvedEnv`, whose `secrets` are what the log has to be cleaned of.

Another scheme is an entry point of the group `hybridq.secret_providers`: its name is the scheme, it is called without
arguments and returns a `Provider`. It is loaded when a rule has allowed a reference of its scheme, not before.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from .env import EnvSecrets
from .exec import ExecSecrets
from .file import FileSecrets
from .ref import AllowedRef, SecretRef
from .refused import SecretRefused, SecretUnavailable
from .rules import RuleMalformed, Rules
from .vault import VaultSecrets

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from ..work_of import Work

__all__ = [
    "AllowedRef",
    "EnvSecrets",
    "ExecSecrets",
    "FileSecrets",
    "Provider",
    "ResolvedEnv",
    "RuleMalformed",
    "Rules",
    "SecretRef",
    "SecretRefused",
    "SecretUnavailable",
    "Secrets",
    "VaultSecrets",
]

GROUP: Final = "hybridq.secret_providers"
TIMEOUT_S: Final = 20.0
SECRET_BYTES_MAX: Final = 64 * 1024


class Provider(Protocol):
    """Resolves the references of one scheme."""

    @property
    def scheme(self) -> str:
        """What stands before `://`."""

    def resolve(self, ref: SecretRef, timeout_s: float) -> str:
        """Return the secret, within `timeout_s` seconds. Raises `SecretUnavailable`; other errors are named."""


class ResolvedEnv(msgspec.Struct, frozen=True):
    """An environment, all of texts; `secrets` are the values to redact. When it is printed, names alone are shown."""

    values: dict[str, str]
    secrets: tuple[str, ...] = ()

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        return [("names", sorted(self.values)), ("secrets", len(self.secrets))]

    def __repr__(self) -> str:
        return f"ResolvedEnv(names={sorted(self.values)}, secrets={len(self.secrets)})"


class Secrets:
    """Resolves references by `providers`, as far as `allow` lets it: by default nothing.

    Args:
        providers: One for each scheme.
        allow: Rules `[POOL=]PATTERN`, such as `linux=vault://ci/*`; see `rules`.
        timeout_s: For one secret; all of a job's have three times as long.
        plugins: Entry points, each named for the scheme it knows.
    """

    def __init__(
        self,
        providers: Iterable[Provider] = (),
        allow: Iterable[str] = (),
        *,
        timeout_s: float = TIMEOUT_S,
        plugins: Iterable[EntryPoint] = (),
    ) -> None:
        self._providers = {provider.scheme: provider for provider in providers}
        self._plugins = {plugin.name: plugin for plugin in plugins}
        self._rules = Rules(allow)
        self._timeout_s, self._all_timeout_s = timeout_s, 3 * timeout_s

    @classmethod
    def of(
        cls,
        allow: Iterable[str] = (),
        *,
        programs: str | os.PathLike[str] | None = None,
        environ: Mapping[str, str] | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> Secrets:
        """Return what an agent uses: env, file, vault, exec with the programs in a folder, and the schemes of others.

        `environ` is the agent's environment; the providers keep it as it is now.
        """
        from importlib.metadata import entry_points

        own: list[Provider] = [
            EnvSecrets(environ),
            FileSecrets(),
            ExecSecrets(programs, environ=environ),
            VaultSecrets(environ),
        ]
        return cls(own, allow, timeout_s=timeout_s, plugins=entry_points(group=GROUP))

    def resolve(self, env: Mapping[str, str | SecretRef], *, pool: str, sealed: bool = False) -> ResolvedEnv:
        """Return `env` with each reference replaced by its secret; of a sealed job the texts are secrets too.

        Raises `SecretRefused` before anything is asked for, `SecretUnavailable` when a provider fails.
        """
        [values], secrets = self._resolved([env], pool, sealed)
        return ResolvedEnv(values, secrets)

    def resolve_work(self, work: Work, *, pool: str) -> tuple[Work, ResolvedEnv]:
        """Return the work with texts alone in its environments, and the job's environment with the secrets of all.

        Raises as `resolve` does.
        """
        values, secrets = self._resolved([work.env, *(step.env for step in work.steps)], pool, work.sealed)
        replace = msgspec.structs.replace
        steps = tuple(replace(step, env=dict(env)) for step, env in zip(work.steps, values[1:], strict=True))
        return replace(work, steps=steps, env=dict(values[0])), ResolvedEnv(values[0], secrets)

    def _resolved(
        self, envs: Sequence[Mapping[str, str | SecretRef]], pool: str, sealed: bool
    ) -> tuple[list[dict[str, str]], tuple[str, ...]]:
        found = {value: "" for env in envs for value in env.values() if isinstance(value, SecretRef)}
        allowed = {ref: self._allowed(ref, pool) for ref in found}
        ends = time.monotonic() + self._all_timeout_s
        for ref, known in allowed.items():
            found[ref] = self._secret(known, min(self._timeout_s, ends - time.monotonic()))
        values = [
            {name: found[value] if isinstance(value, SecretRef) else value for name, value in env.items()}
            for env in envs
        ]
        texts = [value for env in envs for value in env.values() if sealed and isinstance(value, str) and value]
        return values, tuple(dict.fromkeys([*found.values(), *texts]))

    def _allowed(self, ref: SecretRef, pool: str) -> AllowedRef:
        if not ref.well_formed:
            raise SecretRefused(
                "secret_ref_malformed",
                "a reference is written scheme://path#field, without . or .. or % or spaces in it",
            )
        if ref.scheme not in self._providers and ref.scheme not in self._plugins:
            raise SecretRefused("secret_scheme_unknown", f"this agent knows no references of the scheme {ref.scheme}")
        known = self._rules.allowed(ref, pool)
        if known is None:
            raise SecretRefused("secret_not_allowed", f"{ref}: no rule of this agent allows it to jobs of pool {pool}")
        return known

    def _secret(self, ref: AllowedRef, timeout_s: float) -> str:
        if timeout_s <= 0:
            raise SecretUnavailable(ref, "the job's other secrets took all the time there is")
        try:
            secret = self._provider(ref).resolve(ref, timeout_s)
        except SecretUnavailable as wrong:
            # As if raised here: what led to it may hold the secret.
            raise wrong.with_traceback(None) from None
        except Exception as wrong:
            raise SecretUnavailable(ref, f"its provider failed ({type(wrong).__name__})") from None
        if not isinstance(secret, str) or not secret:
            raise SecretUnavailable(ref, "it is empty")
        if "\0" in secret:
            raise SecretUnavailable(ref, "it holds a NUL character, which no environment takes")
        if len(secret.encode(errors="surrogatepass")) > SECRET_BYTES_MAX:
            raise SecretUnavailable(ref, f"it is larger than {SECRET_BYTES_MAX} bytes")
        return secret

    def _provider(self, ref: SecretRef) -> Provider:
        provider = self._providers.get(ref.scheme)
        if provider is None:
            provider = self._providers[ref.scheme] = self._plugins[ref.scheme].load()()
        return provider
