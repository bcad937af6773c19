"""People: in by their provider and out again, and what a browser can be made to do in between."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
import redis as redis_py

from api.settings import ClaimRule, Rate, Secret
from hybridq import Access, tokens
from tests import servers
from tests.api.client import Api, instant, problem
from tests.oidc import Issuer, Provider
from tests.servers import ServerProcess

RULES = (
    ClaimRule(claim="groups", value="admins", role="admin"),
    ClaimRule(claim="groups", value="viewers", role="viewer"),
)
OIDC: dict[str, Any] = {
    "oidc_client_id": "hybridq",
    "oidc_client_secret": Secret("any"),
    "oidc_redirect_url": "http://127.0.0.1/",
    "oidc_rules": RULES,
}


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with Provider() as provider:
        provider.put_user("ada", groups=["admins"])
        provider.put_user("vic", groups=["viewers"])
        provider.put_user("eve", groups=["strangers"])
        yield provider


@pytest.fixture(scope="module")
def database() -> Iterator[ServerProcess]:
    with ServerProcess(next(iter(servers.ENGINES))) as server:
        yield server


@pytest.fixture(scope="module")
def api(database: ServerProcess, provider: Provider) -> Iterator[Api]:
    with Api(database.url, "default", oidc_issuer=provider.url, **OIDC) as api:
        yield api


@pytest.fixture
def records(database: ServerProcess) -> Iterator[redis_py.Redis]:
    with database.client() as client:
        yield client


class Browser:
    """A browser at our own page: it keeps cookies and says where a request comes from."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self.client: httpx2.Client = api.connect()
        self.csrf = ""

    def begin(self) -> str:
        """Press `sign in`; return the provider's address."""
        answer = self.client.get("/auth/login")
        assert answer.status_code == 302, answer.text
        return answer.headers["location"]

    def post(self, path: str, body: Any = None, **headers: str) -> httpx2.Response:
        sent = {"Origin": self._api.url, "Sec-Fetch-Site": "same-origin", "X-CSRF-Token": self.csrf, **headers}
        sent = {name.replace("_", "-"): value for name, value in sent.items() if value}
        return self.client.post(path, json={} if body is None else body, headers=sent)

    def finish(self, back: dict[str, str], **headers: str) -> httpx2.Response:
        answer = self.post("/auth/session", {"code": back["code"], "state": back["state"]}, **headers)
        if answer.status_code == 201:
            self.csrf = answer.json()["csrf_token"]
        return answer

    def sign_in(self, provider: Provider, subject: str) -> httpx2.Response:
        return self.finish(provider.sign_in(self.begin(), subject))

    def validate(self) -> dict[str, Any]:
        answer = self.client.post("/auth/validate")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    @property
    def cookie(self) -> str:
        return self.client.cookies["hq_session"]


@pytest.fixture
def browser(api: Api) -> Browser:
    return Browser(api)


@pytest.fixture
def signed_in(browser: Browser, provider: Provider) -> Browser:
    assert browser.sign_in(provider, "ada").status_code == 201
    return browser


# -- in and out -------------------------------------------------------------------------------------------------------


def test_a_person_signs_in_looks_around_and_signs_out(api: Api, browser: Browser, provider: Provider) -> None:
    assert browser.validate() == {"valid": False, "user": None, "expires_at": None, "csrf_token": None}
    address = browser.begin()
    query = {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
    assert address.startswith(f"{provider.url}/oauth2/authorize?")
    assert (query["response_type"], query["code_challenge_method"]) == ("code", "S256")
    assert len(query["state"]) >= 32 and len(query["nonce"]) >= 32
    answer = browser.finish(provider.sign_in(address, "ada"))
    assert answer.status_code == 201
    made = answer.json()
    assert (made["user"]["name"], made["user"]["role"]) == ("ada", "admin")
    instant(made["expires_at"])
    set_cookies = answer.headers.get_list("set-cookie")
    session = next(line for line in set_cookies if line.startswith("hq_session=hqs_"))
    assert {"HttpOnly", "SameSite=Lax", "Path=/"} <= set(session.split("; ")) and "Domain" not in session
    valid = browser.validate()
    assert valid["valid"] is True and valid["user"] == made["user"]
    assert (valid["expires_at"], valid["csrf_token"]) == (made["expires_at"], made["csrf_token"])
    assert browser.client.get("/api/agents").status_code == 200
    assert browser.post("/api/keys", {"name": "mine", "scopes": ["agents:read"]}).json()["created_by"] == "ada"
    kept = browser.cookie
    out = browser.post("/auth/logout")
    assert out.status_code == 204 and "hq_session=; " in out.headers["set-cookie"]
    assert "cookies" in out.headers["clear-site-data"]
    assert browser.validate()["valid"] is False
    problem(api.get("/api/agents", token=None, headers={"Cookie": f"hq_session={kept}"}), 401, "unauthenticated")


def test_over_tls_the_cookie_is_bound_to_the_host(database: ServerProcess, provider: Provider) -> None:
    from ipaddress import ip_network

    trusted = (ip_network("127.0.0.0/8"),)
    with Api(database.url, "default", oidc_issuer=provider.url, trusted_proxies=trusted, **OIDC) as api:
        forwarded = {"X-Forwarded-Proto": "https"}
        begun = api.get("/auth/login", token=None, headers=forwarded)
        assert begun.headers["set-cookie"].startswith("__Host-hq_login=")
        binding = begun.headers["set-cookie"].partition(";")[0]
        back = provider.sign_in(begun.headers["location"], "vic")
        answer = api.post("/auth/session", back, token=None, headers={**forwarded, "Cookie": binding})
        session = next(line for line in answer.headers.get_list("set-cookie") if "session=hqs_" in line)
        assert session.startswith("__Host-hq_session=")
        assert {"Secure", "HttpOnly", "SameSite=Lax", "Path=/"} <= set(session.split("; ")) and "Domain" not in session
        cookie = {"Cookie": session.partition(";")[0]}
        assert api.get("/api/agents", token=None, headers={**forwarded, **cookie}).status_code == 200
        problem(api.get("/api/agents", token=None, headers=cookie), 401, "unauthenticated")


def test_a_viewer_changes_nothing(browser: Browser, provider: Provider) -> None:
    assert browser.sign_in(provider, "vic").json()["user"]["role"] == "viewer"
    assert browser.client.get("/api/agents").status_code == 200
    problem(browser.post("/api/keys", {"name": "x", "scopes": ["agents:read"]}), 403, "missing_scope")


def test_who_has_no_role_stays_out(api: Api, browser: Browser, provider: Provider) -> None:
    answer = browser.sign_in(provider, "eve")
    problem(answer, 403, "no_role")
    assert "hq_session" not in browser.client.cookies
    newest = api.get("/api/audit").json()["items"][0]
    assert (newest["actor"], newest["action"], newest["outcome"]) == ("person:eve", "session.open", "refused")


def test_logins_and_logouts_are_in_the_audit(api: Api, signed_in: Browser) -> None:
    signed_in.post("/auth/logout")
    newest = api.get("/api/audit").json()["items"][:2]
    assert [(one["actor"], one["action"]) for one in newest] == [
        ("person:ada", "session.close"),
        ("person:ada", "session.open"),
    ]


def test_a_one_time_login_works_once(api: Api, browser: Browser, database: ServerProcess) -> None:
    with Access(redis=database.url) as access:
        text = access.make_login_token("dev", role="admin", namespace="default")
    answer = browser.post("/auth/session", {"login_token": text})
    assert answer.status_code == 201 and answer.json()["user"]["name"] == "dev"
    problem(Browser(api).post("/auth/session", {"login_token": text}), 401, "login_failed")
    problem(Browser(api).post("/auth/session", {"login_token": tokens.make("login")}), 401, "login_failed")


@pytest.mark.parametrize(
    "body", [{}, {"code": "x"}, {"state": "x"}, {"code": "x", "state": "y", "login_token": "z"}, {"user_info": {}}]
)
def test_a_login_is_a_code_and_its_state_or_a_token(browser: Browser, body: dict[str, Any]) -> None:
    problem(browser.post("/auth/session", body), 400, "invalid_argument")


def test_without_a_provider_there_is_nowhere_to_go(database: ServerProcess) -> None:
    with Api(database.url, "default") as api:
        problem(api.get("/auth/login", token=None), 404, "not_found")
        problem(api.post("/auth/session", {"code": "x", "state": "y"}, token=None), 404, "not_found")


# -- what can go wrong on the way ---------------------------------------------------------------------------------


def test_a_login_is_finished_once(browser: Browser, provider: Provider) -> None:
    back = provider.sign_in(browser.begin(), "ada")
    assert browser.finish(back).status_code == 201
    problem(browser.finish(back), 401, "login_failed")


def test_nobody_can_be_made_to_finish_another_s_login(api: Api, browser: Browser, provider: Provider) -> None:
    """A link with an attacker's code and state would sign the victim in as the attacker."""
    attacker = Browser(api)
    back = provider.sign_in(attacker.begin(), "vic")
    browser.begin()
    problem(browser.finish(back), 401, "login_failed")
    fresh = Browser(api)
    problem(fresh.finish(back), 401, "login_failed")
    assert attacker.finish(back).status_code == 201, "and that has used nothing up"


def test_a_client_that_is_no_browser_needs_no_cookie(api: Api, provider: Provider) -> None:
    back = provider.sign_in(api.get("/auth/login", token=None).headers["location"], "ada")
    assert api.post("/auth/session", back, token=None).status_code == 201


@pytest.mark.parametrize(
    "headers", [{"Origin": "https://evil.test"}, {"Origin": "null"}, {"Sec_Fetch_Site": "cross-site"}]
)
def test_another_site_s_page_signs_nobody_in(browser: Browser, provider: Provider, headers: dict[str, str]) -> None:
    problem(browser.finish(provider.sign_in(browser.begin(), "ada"), **headers), 403, "csrf")


def test_made_up_states_and_codes_are_refused(browser: Browser, provider: Provider) -> None:
    back = provider.sign_in(browser.begin(), "ada")
    problem(browser.finish({**back, "state": "0" * 64}), 401, "login_failed")
    problem(browser.finish({**back, "code": "made-up"}), 401, "login_failed")
    problem(browser.finish(back), 401, "login_failed")


def test_a_provider_that_is_away_is_503(database: ServerProcess) -> None:
    with Issuer("EC") as issuer:
        with Api(database.url, "default", oidc_issuer=issuer.url, **OIDC) as api:
            begun = api.get("/auth/login", token=None)
            state = parse_qs(urlsplit(begun.headers["location"]).query)["state"][0]
            issuer.close()
            answer = api.post("/auth/session", {"code": "x", "state": state}, token=None)
            problem(answer, 503, "provider_unavailable")
            assert int(answer.headers["retry-after"]) > 0
        with Api(database.url, "default", oidc_issuer=issuer.url, **OIDC) as api:
            problem(api.get("/auth/login", token=None), 503, "provider_unavailable")


# -- the session itself ---------------------------------------------------------------------------------------------


def test_a_login_ends_the_session_that_the_browser_had(api: Api, signed_in: Browser, provider: Provider) -> None:
    before = signed_in.cookie
    assert signed_in.sign_in(provider, "ada").status_code == 201
    assert signed_in.cookie != before
    problem(api.get("/api/agents", token=None, headers={"Cookie": f"hq_session={before}"}), 401, "unauthenticated")


def test_a_planted_cookie_is_not_taken_over(api: Api, browser: Browser, provider: Provider) -> None:
    """Session fixation: what an attacker put into the browser is worth nothing after the login."""
    planted = tokens.make("session")
    browser.client.cookies.set("hq_session", planted)
    back = provider.sign_in(browser.begin(), "ada")
    answer = browser.finish(back)
    assert answer.status_code == 201 and planted not in answer.headers["set-cookie"]
    problem(api.get("/api/agents", token=None, headers={"Cookie": f"hq_session={planted}"}), 401, "unauthenticated")


def test_naming_another_s_session_does_not_end_it(api: Api, signed_in: Browser, provider: Provider) -> None:
    forged = tokens.make("session", signed_in.cookie[4:16])
    other = Browser(api)
    other.client.cookies.set("hq_session", forged)
    other.client.cookies.delete("hq_login") if "hq_login" in other.client.cookies else None
    other.sign_in(provider, "vic")
    assert signed_in.validate()["valid"] is True


def _later(records: redis_py.Redis, browser: Browser, seconds: float) -> None:
    """Let time go by for a session: all its instants move into the past."""
    name = f"hq:{{sys/auth}}:session:{browser.cookie[4:16]}"
    for field in ("used_ms", "created_ms", "expires_ms"):
        assert records.hincrby(name, field, -int(seconds * 1000)) > 0


def test_an_unused_session_ends(records: redis_py.Redis, signed_in: Browser) -> None:
    _later(records, signed_in, 1700)
    assert signed_in.validate()["valid"] is True, "and that was a use"
    _later(records, signed_in, 1700)
    assert signed_in.validate()["valid"] is True
    _later(records, signed_in, 1801)
    assert signed_in.validate()["valid"] is False
    problem(signed_in.client.get("/api/agents"), 401, "unauthenticated")


def test_a_session_ends_after_a_day_however_much_it_is_used(records: redis_py.Redis, signed_in: Browser) -> None:
    for _ in range(54):
        _later(records, signed_in, 1600)
        if not signed_in.validate()["valid"]:
            break
    else:
        pytest.fail("it is still there after 24 hours")
    problem(signed_in.client.get("/api/agents"), 401, "unauthenticated")


# -- what a page of another site can make a browser do ----------------------------------------------------------


def test_a_change_by_cookie_needs_the_token_and_the_origin(api: Api, signed_in: Browser, provider: Provider) -> None:
    body = {"name": "x", "scopes": ["agents:read"]}
    stranger = Browser(api)
    stranger.sign_in(provider, "ada")
    for headers in (
        {"X_CSRF_Token": ""},
        {"X_CSRF_Token": "guess"},
        {"X_CSRF_Token": stranger.csrf},
        {"Origin": ""},
        {"Origin": "https://evil.test"},
        {"Origin": "null"},
        {"Origin": api.url.replace("127.0.0.1", "localhost")},
    ):
        sent = {"Origin": api.url, "X-CSRF-Token": signed_in.csrf} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        sent = {name: value for name, value in sent.items() if value}
        answer = signed_in.client.post("/api/keys", json=body, headers=sent)
        problem(answer, 403, "csrf")
        problem(signed_in.client.post("/auth/logout", headers=sent), 403, "csrf")
    assert signed_in.validate()["valid"] is True
    assert signed_in.post("/api/keys", body).status_code == 201


def test_a_form_of_another_site_is_not_even_read(api: Api, signed_in: Browser) -> None:
    content = '{"name": "x", "scopes": ["*"]}'
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        headers = {"Content-Type": kind, "Origin": "https://evil.test"}
        answer = signed_in.client.post("/api/keys", content=content, headers=headers)
        problem(answer, 415, "unsupported_media_type")


def test_a_bearer_leaves_the_cookie_out_of_it(api: Api, signed_in: Browser) -> None:
    headers = {"Authorization": "Bearer nonsense"}
    problem(signed_in.client.get("/api/agents", headers=headers), 401, "unauthenticated")
    problem(api.get("/api/agents", token=signed_in.cookie), 401, "unauthenticated")


# -- limits -----------------------------------------------------------------------------------------------------------


def test_auth_is_limited_for_each_peer(database: ServerProcess) -> None:
    with Api(database.url, "default", rate_auth=Rate(0.01, 3)) as api:
        for _ in range(3):
            problem(api.post("/auth/session", {"login_token": "guess"}, token=None), 401, "login_failed")
        refused = api.post("/auth/session", {"login_token": "guess"}, token=None)
        problem(refused, 429, "rate_limited")
        assert int(refused.headers["retry-after"]) > 0
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        limited = api.post("/auth/token", content="grant_type=x", headers=form, token=None)
        assert (limited.status_code, limited.json()["error"]) == (429, "temporarily_unavailable")
