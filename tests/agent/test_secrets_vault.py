"""`vault://`, against a little server that speaks KV version 2, and one that misbehaves."""

from __future__ import annotations

import json
import ssl
import threading
import time
import traceback
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme

from hybridq.agent.secrets import SecretRef, Secrets, SecretUnavailable, VaultSecrets
from tests.agent.scripted import Reply, Scripted

VALUE = "s3cr3t-value-of-mine"
TOKEN = "hvs." + "CAESIJ" * 4


class Vault:
    """The part of Vault that reads KV version 2: mounts, versions, namespaces, tokens, policies."""

    def __init__(self) -> None:
        self.token = TOKEN
        self.secrets: dict[tuple[str, str], dict[str, Any]] = {}
        """(namespace, path) → fields."""
        self.deleted: set[str] = set()
        self.forbidden: set[str] = set()
        self.seen: list[tuple[str, str]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.vault = self  # type: ignore[attr-defined]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, path: str, headers: Any) -> tuple[int, dict[str, Any]]:
        self.seen.append((path, headers.get("X-Vault-Namespace", "")))
        if headers.get("X-Vault-Request") != "true":
            return 412, {"errors": ["missing X-Vault-Request"]}
        if headers.get("X-Vault-Token") != self.token or path in self.forbidden:
            return 403, {"errors": [f"1 error occurred: permission denied for {headers.get('X-Vault-Token')}"]}
        version = {"created_time": "2030-01-31T08:00:00Z", "deletion_time": "", "destroyed": False, "version": 2}
        if path in self.deleted:
            return 404, {"data": {"data": None, "metadata": version | {"deletion_time": "2030-02-01T08:00:00Z"}}}
        fields = self.secrets.get((headers.get("X-Vault-Namespace", ""), path))
        if fields is None:
            return 404, {"errors": []}
        return 200, {
            "request_id": "1",
            "lease_id": "",
            "renewable": False,
            "data": {"data": fields, "metadata": version},
        }


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        status, document = self.server.vault.answer(self.path, self.headers)  # type: ignore[attr-defined]
        content = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def vault() -> Iterator[Vault]:
    running = Vault()
    running.secrets["", "/v1/ci/data/registry"] = {"token": VALUE, "user": "ci", "port": 5000, "none": None, "a.b": "c"}
    running.secrets["", "/v1/kv/data/team/app/db"] = {"password": "other"}
    yield running
    running.close()


def read(url: str, ref: str, timeout_s: float = 20.0, **environ: str) -> str:
    provider = VaultSecrets({"VAULT_ADDR": url, "VAULT_TOKEN": TOKEN, **environ})
    secrets = Secrets([provider], ["vault://**"], timeout_s=timeout_s)
    return secrets.resolve({"A": SecretRef(ref)}, pool="linux").values["A"]


def unavailable(url: str, ref: str, reason: str, **options: Any) -> None:
    with pytest.raises(SecretUnavailable, match=reason) as caught:
        read(url, ref, **options)
    shown = "".join(traceback.format_exception(caught.value))
    assert VALUE not in shown and TOKEN not in shown


def test_a_field_of_a_secret(vault: Vault) -> None:
    assert read(vault.url, "vault://ci/registry#token") == VALUE
    assert read(vault.url + "/", "vault://ci/registry#a.b") == "c"
    assert read(vault.url, "vault://kv/team/app/db#password") == "other"
    assert vault.seen[-1] == ("/v1/kv/data/team/app/db", "")


def test_a_namespace(vault: Vault) -> None:
    vault.secrets["teams/ci", "/v1/ci/data/registry"] = {"token": "of the team"}

    assert read(vault.url, "vault://ci/registry#token", VAULT_NAMESPACE="teams/ci") == "of the team"
    assert vault.seen == [("/v1/ci/data/registry", "teams/ci")]


def test_a_token_in_a_file_is_read_each_time(vault: Vault, tmp_path: Path) -> None:
    """An agent of Vault's renews it."""
    path = tmp_path / "token"
    provider = VaultSecrets({"VAULT_ADDR": vault.url, "VAULT_TOKEN_FILE": str(path)})
    for token in ("first", "second"):
        path.write_text(token + "\n")
        vault.token = token
        assert provider.resolve(SecretRef("vault://ci/registry#token"), 5.0) == VALUE
    path.unlink()
    with pytest.raises(SecretUnavailable, match="VAULT_TOKEN_FILE"):
        provider.resolve(SecretRef("vault://ci/registry#token"), 5.0)


@pytest.mark.parametrize(
    ("ref", "reason"),
    [
        ("vault://ci/registry#nothing", "no such field"),
        ("vault://ci/registry#none", "no such field"),
        ("vault://ci/registry#port", "no text"),
        ("vault://ci/nothing#token", "404"),
        ("vault://other/registry#token", "404"),
        ("vault://ci/registry", "MOUNT"),
        ("vault://ci#token", "MOUNT"),
        ("vault:///ci/registry#token", "MOUNT"),
    ],
)
def test_what_is_not_there(vault: Vault, ref: str, reason: str) -> None:
    unavailable(vault.url, ref, reason)


def test_what_was_deleted_or_is_not_allowed(vault: Vault) -> None:
    vault.deleted.add("/v1/ci/data/old")
    vault.forbidden.add("/v1/ci/data/prod")

    unavailable(vault.url, "vault://ci/old#token", "deleted")
    unavailable(vault.url, "vault://ci/prod#token", "403")
    unavailable(vault.url, "vault://ci/registry#token", "403", VAULT_TOKEN="another")


@pytest.mark.parametrize(
    "environ",
    [
        {"VAULT_ADDR": ""},
        {"VAULT_ADDR": "vault.example.com"},
        {"VAULT_ADDR": "ftp://vault.example.com"},
        {"VAULT_ADDR": "http://vault.example.com"},
        {"VAULT_ADDR": "http://127.0.0.1.example.com"},
        {"VAULT_ADDR": "http://127.0.0.1@vault.example.com"},
        {"VAULT_ADDR": "https://[bad"},
        {"VAULT_TOKEN": ""},
        {"VAULT_TOKEN": "a\nb"},
        {"VAULT_TOKEN": "ü"},
        {"VAULT_CACERT": "/no/such/file"},
    ],
    ids=lambda environ: "-".join(environ.values())[:32],
)
def test_an_agent_that_was_not_told_well_asks_nobody(vault: Vault, environ: dict[str, str]) -> None:
    unavailable(environ.get("VAULT_ADDR", vault.url), "vault://ci/registry#token", "VAULT|token for Vault", **environ)
    assert vault.seen == []


def test_nobody_answers(free_url: str) -> None:
    unavailable(free_url, "vault://ci/registry#token", "not reachable")


@pytest.fixture
def free_url() -> str:
    from tests.servers import free_port

    return f"http://127.0.0.1:{free_port()}"


def good(**more: Any) -> Reply:
    return Reply(200, {"data": {"data": {"token": VALUE}}}, **more)


def test_a_server_that_stumbles_is_asked_again(scripted: Scripted) -> None:
    scripted.replies = [Reply(503, {"errors": ["Vault is sealed"]}), Reply(cut=0), good()]

    assert read(scripted.url, "vault://ci/registry#token") == VALUE
    assert len(scripted.requests) == 3


@pytest.mark.parametrize(("status", "asked"), [(503, 3), (500, 3), (403, 1), (429, 1), (400, 1), (418, 1), (204, 1)])
def test_but_not_for_ever(scripted: Scripted, status: int, asked: int) -> None:
    scripted.replies = [Reply(status, {"errors": [f"{VALUE} {TOKEN}"]})]

    unavailable(scripted.url, "vault://ci/registry#token", str(status) if status != 204 else "204")
    assert len(scripted.requests) == asked


def test_it_is_not_led_elsewhere(scripted: Scripted) -> None:
    """The token would go along."""
    with Scripted() as elsewhere:
        elsewhere.replies = [good()]
        scripted.replies = [Reply(307, headers={"Location": f"{elsewhere.url}/v1/ci/data/registry"})]

        unavailable(scripted.url, "vault://ci/registry#token", "307")

        assert elsewhere.requests == []


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"<html>", b"[]", b"1", b'{"data": null}', b'{"data": {"token": "of version 1"}}'),
        *(b'{"data": {"data": [1]}}', b'{"data": {"data": null}}', b'{"data": "x"}', b'\xff{"data"', b"[" * 100_000),
    ],
    ids=lambda body: repr(body)[:20],
)
def test_an_answer_of_another_kind(scripted: Scripted, body: bytes) -> None:
    scripted.replies = [Reply(200, body)]

    unavailable(scripted.url, "vault://ci/registry#token", "KV version 2")


def test_an_answer_without_end(scripted: Scripted) -> None:
    scripted.replies = [Reply(200, b"x" * 2_000_000)]
    unavailable(scripted.url, "vault://ci/registry#token", "larger")


def test_an_answer_that_takes_too_long(scripted: Scripted) -> None:
    silent = threading.Event()
    for reply in (good(silent=silent), good(drip_s=0.2)):
        scripted.replies = [reply]
        began = time.monotonic()
        unavailable(scripted.url, "vault://ci/registry#token", "time|reachable", timeout_s=0.6)
        assert time.monotonic() - began < 6
    silent.set()


def test_over_tls_with_an_authority_of_one_s_own(tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with Scripted(context) as server:
        server.replies = [good()]

        assert read(server.url, "vault://ci/registry#token", VAULT_CACERT=str(tmp_path / "ca.pem")) == VALUE
        unavailable(server.url, "vault://ci/registry#token", "not reachable")
        assert len(server.requests) == 1


def test_vault_on_this_machine_is_not_asked_through_a_proxy(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would see the token in the clear."""
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    secrets = VaultSecrets({"VAULT_ADDR": vault.url, "VAULT_TOKEN": TOKEN})
    with Scripted() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("http_proxy", proxy.url)

        assert VALUE == secrets.resolve(SecretRef("vault://ci/registry#token"), 10)

        assert [] == proxy.requests
