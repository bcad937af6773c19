"""`vault://MOUNT/path#field`: a field of a secret in HashiCorp Vault or OpenBao, KV version 2."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote, urlsplit

from .ref import SecretRef
from .refused import SecretUnavailable

__all__ = ["VaultSecrets"]

ANSWER_BYTES_MAX: Final = 1024 * 1024
TOKEN_BYTES_MAX: Final = 16 * 1024
TRIES: Final = 3
_LOOPBACK: Final = ("127.0.0.1", "localhost", "::1")


class VaultSecrets:
    """Secrets of the server at `VAULT_ADDR`, with the variables that Vault's own command line knows.

    `VAULT_ADDR`, `VAULT_TOKEN` or `VAULT_TOKEN_FILE` (read anew each time, so an agent of Vault's may renew it),
    `VAULT_NAMESPACE`, `VAULT_CACERT`. The first segment is the mount, the others are the path below it. Plain HTTP is
    for the same machine alone.
    """

    scheme = "vault"

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        self._environ = dict(os.environ if environ is None else environ)

    def resolve(self, ref: SecretRef, timeout_s: float) -> str:
        """Return the field's value."""
        mount, _, path = ref.path.partition("/")
        if not mount or not path or not ref.field:
            raise SecretUnavailable(ref, "a reference of this kind is vault://MOUNT/path#field")
        fields = self._fields(ref, self._url(ref, mount, path), timeout_s)
        value = fields.get(ref.field)
        if value is None:
            raise SecretUnavailable(ref, "the secret has no such field")
        if not isinstance(value, str):
            raise SecretUnavailable(ref, "the field holds no text")
        return value

    def _url(self, ref: SecretRef, mount: str, path: str) -> str:
        address = self._environ.get("VAULT_ADDR", "").rstrip("/")
        try:
            parts = urlsplit(address)
        except ValueError:
            raise SecretUnavailable(ref, "the agent's VAULT_ADDR is none") from None
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise SecretUnavailable(ref, "the agent has no VAULT_ADDR")
        if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
            raise SecretUnavailable(ref, "VAULT_ADDR must be https, so that nobody on the way reads the token")
        return f"{address}/v1/{quote(mount)}/data/{quote(path)}"

    def _token(self, ref: SecretRef) -> str:
        token = self._environ.get("VAULT_TOKEN")
        if not token:
            path = self._environ.get("VAULT_TOKEN_FILE")
            if not path:
                raise SecretUnavailable(ref, "the agent has no VAULT_TOKEN and no VAULT_TOKEN_FILE")
            try:
                with open(path, "rb") as file:
                    token = file.read(TOKEN_BYTES_MAX).decode("ascii").strip()
            except (OSError, UnicodeDecodeError):
                raise SecretUnavailable(ref, "VAULT_TOKEN_FILE cannot be read") from None
        if not token or not token.isascii() or not token.isprintable():
            raise SecretUnavailable(ref, "the agent's token for Vault is none")
        return token

    def _fields(self, ref: SecretRef, url: str, timeout_s: float) -> Mapping[str, Any]:
        import httpx2
        import msgspec

        ends = time.monotonic() + timeout_s
        headers = {"X-Vault-Token": self._token(ref), "X-Vault-Request": "true"}
        namespace = self._environ.get("VAULT_NAMESPACE")
        if namespace:
            headers["X-Vault-Namespace"] = namespace
        # Redirects are not followed: the token would go where an answer says.
        # Nor is what is on this machine looked for through a proxy that the environment names: it would see the token.
        options = {"verify": self._verify(ref), "follow_redirects": False, "trust_env": url.startswith("https:")}
        with httpx2.Client(**options) as client:
            for last in _tries():
                left_s = ends - time.monotonic()
                if left_s <= 0:
                    raise SecretUnavailable(ref, "Vault did not answer in time")
                try:
                    with client.stream("GET", url, headers=headers, timeout=left_s) as answer:
                        body = _body(ref, answer.iter_bytes(), ends)
                except httpx2.HTTPError as wrong:
                    if last:
                        raise SecretUnavailable(ref, f"Vault is not reachable ({type(wrong).__name__})") from None
                    continue
                if answer.status_code == 200:
                    break
                if last or answer.status_code < 500:
                    raise SecretUnavailable(ref, _SAID.get(answer.status_code, f"Vault said {answer.status_code}"))
        try:
            fields = msgspec.json.decode(body)["data"]["data"]
        except (msgspec.MsgspecError, LookupError, TypeError, RecursionError):
            fields = None
        if not isinstance(fields, dict):
            raise SecretUnavailable(ref, "Vault's answer is none of a KV version 2 mount")
        return fields

    def _verify(self, ref: SecretRef) -> Any:
        import ssl

        path = self._environ.get("VAULT_CACERT")
        if not path:
            return True
        try:
            return ssl.create_default_context(cafile=path)
        except (OSError, ssl.SSLError):
            raise SecretUnavailable(ref, "VAULT_CACERT cannot be read") from None


def _tries() -> Iterator[bool]:
    """Yield for each try whether it is the last one; wait a little between them."""
    for number in range(1, TRIES + 1):
        yield number == TRIES
        time.sleep(0.1 * number)


def _body(ref: SecretRef, pieces: Iterator[bytes], ends: float) -> bytes:
    body = bytearray()
    for piece in pieces:
        body += piece
        if len(body) > ANSWER_BYTES_MAX:
            raise SecretUnavailable(ref, f"Vault's answer is larger than {ANSWER_BYTES_MAX} bytes")
        if time.monotonic() > ends:
            raise SecretUnavailable(ref, "Vault did not answer in time")
    return bytes(body)


_SAID: Final = {
    400: "Vault does not understand the request (400)",
    403: "Vault does not allow the agent this secret (403)",
    404: "Vault has no such secret, or its newest version was deleted (404)",
    307: "this Vault is a standby, and VAULT_ADDR must name the active one (307)",
    429: "Vault asks for fewer requests (429)",
    503: "Vault is sealed or away (503)",
}
