"""Where a client goes and over what: TLS that is always checked, proxies, and no token in the clear."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from hybridq.agent import Client, Unreachable
from hybridq.errors import InvalidArgument
from tests.agent.conftest import TOKEN
from tests.agent.scripted import Reply, Scripted
from tests.agent.test_client_retries import JOB

HEALTHY = {"status": "healthy", "version": "1"}


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(str(path))
    return path


def tls_of(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


@pytest.fixture
def secure(authority: trustme.CA) -> Iterator[Scripted]:
    with Scripted(tls_of(authority, "127.0.0.1")) as server:
        server.replies = [Reply(200, HEALTHY)]
        yield server


# -- TLS ---------------------------------------------------------------------------------------------------------


def test_an_authority_of_one_s_own(open_client: Callable[..., Any], secure: Scripted, ca_file: Path) -> None:
    assert open_client(secure.url, token=TOKEN, ca_file=ca_file).health().version == "1"
    assert open_client(secure.url, token=TOKEN, ca_file=str(ca_file)).health().version == "1"


def test_the_environment_names_an_authority_too(
    open_client: Callable[..., Any], secure: Scripted, ca_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(ca_file))
    assert open_client(secure.url, token=TOKEN).health().version == "1"


def test_who_is_not_trusted_gets_no_token_and_no_second_try(open_client: Callable[..., Any], secure: Scripted) -> None:
    with pytest.raises(Unreachable, match="certificate is not trusted") as caught:
        open_client(secure.url, token=TOKEN).health()
    assert caught.value.attempts == 1 and not caught.value.in_doubt and not secure.requests


def test_a_certificate_for_another_name_is_not_trusted(
    open_client: Callable[..., Any], authority: trustme.CA, ca_file: Path
) -> None:
    with Scripted(tls_of(authority, "elsewhere.example")) as server:
        with pytest.raises(Unreachable, match="certificate is not trusted"):
            open_client(server.url, token=TOKEN, ca_file=ca_file).health()
        assert not server.requests


def test_a_client_certificate(
    open_client: Callable[..., Any], authority: trustme.CA, ca_file: Path, tmp_path: Path
) -> None:
    context = tls_of(authority, "127.0.0.1")
    context.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(context)
    issued = authority.issue_cert("agent.example")
    both, cert, key = (str(tmp_path / name) for name in ("both.pem", "cert.pem", "key.pem"))
    issued.private_key_and_cert_chain_pem.write_to_path(both)
    issued.cert_chain_pems[0].write_to_path(cert)
    issued.private_key_pem.write_to_path(key)
    with Scripted(context) as server:
        server.replies = [Reply(200, HEALTHY)]
        for given in (both, (cert, key)):
            assert open_client(server.url, token=TOKEN, ca_file=ca_file, client_cert=given).health().version == "1"
        with pytest.raises(Unreachable):
            open_client(server.url, token=TOKEN, ca_file=ca_file, deadline_s=0).health()


@pytest.mark.parametrize("option", ["ca_file", "client_cert"])
@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_bad_file_is_named_at_once(option: str, content: str | None, tmp_path: Path) -> None:
    path = tmp_path / "bad.pem"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InvalidArgument, match=option):
        Client("https://ci.example.com", token=TOKEN, **{option: str(path)})  # type: ignore[arg-type]


# -- in the clear ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1", "http://127.8.9.10", "http://localhost:8080/x", "http://[::1]:1", "https://a.example"]
)
def test_plain_http_to_this_machine_and_tls_to_others(url: str) -> None:
    with Client(url, token=TOKEN) as client:
        assert client.url == url


@pytest.mark.parametrize(
    "url",
    [
        "http://ci.example.com",
        "http://10.0.0.1",
        "http://0.0.0.0",
        "http://localhost.example.com",
        "http://127.0.0.1.example.com",
        "HTTP://ci.example.com",
    ],
)
def test_plain_http_to_others_has_to_be_asked_for(url: str) -> None:
    with pytest.raises(InvalidArgument, match="insecure"):
        Client(url, token=TOKEN)
    with Client(url, token=TOKEN, insecure=True) as client:
        assert client.url.lower() == url.lower()


def test_insecure_is_about_plain_http_alone(open_client: Callable[..., Any], secure: Scripted) -> None:
    """It does not turn the checks of TLS off; nothing does."""
    with pytest.raises(Unreachable, match="not trusted"):
        open_client(secure.url, token=TOKEN, insecure=True).health()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "ci.example.com",
        "ftp://ci.example.com",
        "https://",
        "https://user:hunter2@ci.example.com",
        "https://ci.example.com/?token=hunter2",
        "https://ci.example.com/#hunter2",
        "https://ci.example.com:hunter2",
        "https://ci.exam ple.com",
        "https://ci.example.com/\n",
        "https://[::1",
        None,
        b"https://ci.example.com",
    ],
)
def test_what_is_no_server_s_url(url: Any) -> None:
    with pytest.raises(InvalidArgument) as caught:
        Client(url, token=TOKEN)
    assert "hunter2" not in str(caught.value)


def test_paths_may_have_a_prefix(open_client: Callable[..., Any], scripted: Scripted) -> None:
    scripted.replies = [Reply(200, HEALTHY)]
    open_client(f"{scripted.url}/ci/hybridq/", token=TOKEN).health()
    assert scripted.requests[0].path == "/ci/hybridq/health"


# -- proxies -----------------------------------------------------------------------------------------------------


@pytest.fixture
def proxy() -> Iterator[Scripted]:
    with Scripted() as server:
        yield server


def test_tls_goes_through_a_proxy_as_it_is(
    open_client: Callable[..., Any], secure: Scripted, proxy: Scripted, ca_file: Path
) -> None:
    through = proxy.url.replace("http://", "http://user:pass@")
    client = open_client(secure.url, token=TOKEN, ca_file=ca_file, proxy=through)
    secure.replies = [Reply(200, JOB)]
    assert client.job("a~j1").id == "a~j1"
    [request] = proxy.requests
    assert (request.method, request.path) == ("CONNECT", f"127.0.0.1:{secure.port}")
    assert "authorization" not in request.headers and request.headers["proxy-authorization"].startswith("Basic ")
    assert secure.requests[0].headers["authorization"] == f"Bearer {TOKEN}"
    assert "pass" not in repr(client._route if hasattr(client, "_route") else client.client._route)


def test_the_environment_s_proxy_is_for_others(
    open_client: Callable[..., Any], scripted: Scripted, proxy: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.setenv(name, proxy.url)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    scripted.replies = proxy.replies = [Reply(200, HEALTHY)]
    open_client(scripted.url, token=TOKEN).health()
    assert scripted.requests and not proxy.requests, "loopback is asked directly"
    open_client("http://ci.example.com", token=TOKEN, insecure=True).health()
    assert proxy.requests[0].path == "http://ci.example.com/health"
    monkeypatch.setenv("NO_PROXY", "ci.example.com")
    monkeypatch.setenv("no_proxy", "ci.example.com")
    with pytest.raises(Unreachable):
        open_client("http://ci.example.com", token=TOKEN, insecure=True, deadline_s=0, timeout_s=2).health()
    assert len(proxy.requests) == 1


def test_plain_http_does_not_leave_this_machine_by_a_proxy() -> None:
    with pytest.raises(InvalidArgument, match="proxy"):
        Client("http://127.0.0.1:1", token=TOKEN, proxy="http://user:hunter2@proxy.example:3128")
    with Client("http://127.0.0.1:1", token=TOKEN, proxy="http://127.0.0.1:3128"):
        pass
    for proxy in ("proxy.example", "file:///x", "http://"):
        with pytest.raises(InvalidArgument, match="proxy"):
            Client("https://ci.example.com", token=TOKEN, proxy=proxy)


# -- headers -----------------------------------------------------------------------------------------------------


def test_what_every_request_carries(open_client: Callable[..., Any], scripted: Scripted) -> None:
    scripted.replies = [Reply(200, JOB, headers={"Set-Cookie": "hq_session=x; Path=/"})]
    client = open_client(scripted.url, token=TOKEN, headers={"X-Door": "a"}, user_agent="mine/1")
    client.job("a~j1")
    client.enqueue("build")
    first, second = (request.headers for request in scripted.requests)
    assert (first["x-door"], first["user-agent"], first["authorization"]) == ("a", "mine/1", f"Bearer {TOKEN}")
    assert "cookie" not in second, "a cookie would be another credential beside the token"
    assert "content-type" not in first and second["content-type"] == "application/json"
    scripted.replies = [Reply(200, HEALTHY)]
    client.health()
    assert "authorization" not in scripted.requests[-1].headers, "who needs no credential is told none"


def test_the_client_says_what_it_is(open_client: Callable[..., Any], scripted: Scripted) -> None:
    scripted.replies = [Reply(200, HEALTHY)]
    open_client(scripted.url, token=TOKEN).health()
    assert scripted.requests[0].headers["user-agent"].startswith("hybridq/")


@pytest.mark.parametrize("name", ["Authorization", "cookie", "Host", "X-Request-Id", "Idempotency-Key", "bad\nname"])
def test_headers_of_the_client_are_its_own(name: str) -> None:
    with pytest.raises(InvalidArgument, match="headers") as caught:
        Client("https://ci.example.com", token=TOKEN, headers={name: "hunter2"})
    assert "hunter2" not in str(caught.value)


def test_a_connection_is_used_again(client: Any, scripted: Scripted) -> None:
    scripted.replies = [Reply(200, JOB)]
    for _ in range(5):
        client.job("a~j1")
    assert scripted.connections == 1


@pytest.mark.parametrize(
    "options",
    [{"timeout_s": 0}, {"timeout_s": -1}, {"deadline_s": -1}, {"timeout_s": float("nan")}, {"deadline_s": 1e9}],
)
def test_limits_have_limits(options: dict[str, float], client: Any) -> None:
    with pytest.raises(InvalidArgument):
        Client("https://ci.example.com", token=TOKEN, **options)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument):
        client.within(**options)
