"""The guard stops every secret of the corpus and nothing that is harmless, and never says what it saw."""

from __future__ import annotations

import json
import random
import re
import time
import urllib.parse
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridq import guard
from hybridq.guard import FINDINGS_MAX, find, redact, redact_value, scan
from tests.unit.guard_corpus import (
    BASE62,
    HARMLESS,
    HARMLESS_JSON,
    HEX,
    SECRETS,
    Secret,
    chars,
    checksummed,
    jwt,
    url64,
)

ALONE = [secret for secret in SECRETS if secret.alone]
ONE_WORD = [secret for secret in ALONE if re.fullmatch(r"[\w.~:-]+", secret.value)]
each = pytest.mark.parametrize("secret", SECRETS, ids=lambda secret: secret.name)
each_alone = pytest.mark.parametrize("secret", ALONE, ids=lambda secret: secret.name)
each_word = pytest.mark.parametrize("secret", ONE_WORD, ids=lambda secret: secret.name)


def pieces_left(value: str, text: str) -> list[str]:
    """Parts of a secret, eight characters each, that are still to be read beside the markers."""
    text = re.sub(r"\[redacted:[a-z0-9-]+\]", "", text)
    return [value[i : i + 8] for i in range(len(value) - 7) if value[i : i + 8] in text]


def resolve(document: Any, pointer: str) -> Any:
    """RFC 6901, written again."""
    for segment in pointer.split("/")[1:]:
        name = segment.replace("~1", "/").replace("~0", "~")
        document = document[int(name)] if isinstance(document, list) else document[name]
    return document


def test_the_corpus_is_as_large_as_promised() -> None:
    assert len(set(HARMLESS)) >= 200
    assert len({secret.value for secret in SECRETS}) >= 60
    assert len({secret.rule for secret in SECRETS}) >= 45


# --- harmless strings ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", HARMLESS, ids=range(len(HARMLESS)))
def test_a_harmless_string_passes(text: str) -> None:
    assert find(text) is None
    assert (text, 0) == redact(text)


@pytest.mark.parametrize("name", ["data", "message", "sha", "image", "command"])
def test_harmless_strings_pass_under_a_harmless_name(name: str) -> None:
    for text in HARMLESS:
        value = {name: text, "list": [text, {"deep": text}]}
        assert scan(value) == []
        assert redact_value(value) == (value, 0)
        assert redact_value(value)[0] is value


def test_all_harmless_strings_in_one_text_pass() -> None:
    assert find("\n".join(HARMLESS)) is None


@pytest.mark.parametrize("value", HARMLESS_JSON, ids=range(len(HARMLESS_JSON)))
def test_harmless_json_passes(value: object) -> None:
    """References, sealed payloads, placeholders, lease tokens."""
    assert scan(value) == []
    assert find(json.dumps(value)) is None


def test_random_blobs_pass() -> None:
    """No entropy rule without a name that promises a secret: 3 MB of Base64, and 1 MB of hex."""
    rng = random.Random(7)
    for alphabet in (BASE62 + "+/", BASE62 + "-_", HEX):
        for _ in range(10):
            assert find("".join(rng.choices(alphabet, k=100_000))) is None


# --- secrets -------------------------------------------------------------------------------------------------------


@each
def test_a_secret_is_found_by_its_own_rule(secret: Secret) -> None:
    finding = find(secret.text)

    assert finding is not None
    assert (secret.rule, "") == (finding.rule, finding.pointer)
    assert secret.value == secret.text[finding.start : finding.end]


SURROUNDINGS = {
    "sentence": "Deployed with {} by mistake, sorry",
    "quotes": 'the value is "{}".',
    "single-quotes": "export X='{}'; make",
    "backticks": "use `{}` here",
    "lines": "line before\n{}\nline after",
    "crlf": "line before\r\n{}\r\nline after",
    "escaped-lines": "before\\n{}\\nafter",
    "brackets": "[{}](x)",
    "xml": "<v>{}</v>",
    "equals": "X_VALUE={}",
    "colour": "\x1b[32m{}\x1b[0m",
    "unicode": "値は{}です",
}


@pytest.mark.parametrize("around", SURROUNDINGS)
def test_secrets_are_found_in_surrounding_text(around: str) -> None:
    before, after = SURROUNDINGS[around].split("{}")
    for secret in SECRETS:
        clean, count = redact(before + secret.text + after)

        assert 1 == count, secret.name
        assert pieces_left(secret.value, clean) == [], secret.name
        assert f"[redacted:{secret.rule}]" in clean, secret.name
        assert clean.startswith(before), secret.name
        # What is assigned goes on to the next blank or quote; after a JWT's dot a signature may come.
        if secret.name != "jwt-unsigned" and (secret.alone or around not in ("brackets", "unicode")):
            assert clean.endswith(after), secret.name
        assert find(clean) is None, secret.name


@each
def test_a_secret_is_found_in_json_and_in_json_as_text(secret: Secret) -> None:
    value = {"steps": [{"run": f"echo {secret.text}"}]}

    assert [secret.rule] == [finding.rule for finding in scan(value)]
    assert "/steps/0/run" == scan(value)[0].pointer
    for text in (json.dumps(value), json.dumps(json.dumps(value))):
        clean, count = redact(text)
        assert count >= 1
        assert pieces_left(json.dumps(secret.value)[1:-1], clean) == []


@each_word
def test_a_token_is_found_in_a_url(secret: Secret) -> None:
    escaped = urllib.parse.quote(secret.value, safe=":")
    for url in (f"https://example.com/a?ref=main&t={escaped}&x=1", f"https://example.com/a/{escaped}/b#c"):
        clean, count = redact(url)
        assert 1 == count
        assert pieces_left(escaped, clean) == []


@each_word
def test_a_token_as_user_or_password_of_a_url_is_found(secret: Secret) -> None:
    clean, _ = redact(f"https://ci:{secret.value}@git.example.com/acme/app.git")

    assert pieces_left(secret.value, clean) == []
    assert clean.startswith("https://ci:[redacted:")
    assert clean.endswith("@git.example.com/acme/app.git")


@each
def test_a_member_whose_name_promises_a_secret(secret: Secret) -> None:
    """Whatever the value looks like, the rule of its shape names it, when it has one."""
    if " " not in secret.value and "\n" not in secret.value:
        [finding] = scan({"password": secret.text}) if secret.alone else scan({"x": secret.text})
        assert secret.rule == finding.rule


def test_github_tokens_glued_to_a_word_are_found_by_their_checksum() -> None:
    """A checksum that holds proves a token anywhere; a mere look-alike inside a word is none."""
    token = "gh" + "p_" + checksummed(chars(BASE62, 30))
    other = token[:-1] + ("a" if token[-1] != "a" else "b")

    assert find("deploytoken" + token) is not None
    assert find("deploytoken" + other) is None
    assert find("deploytoken " + other) is not None


@pytest.mark.parametrize("value", ["x" * 36, "0" * 36])
def test_a_token_of_one_letter_is_a_placeholder(value: str) -> None:
    assert find("gh" + "p_" + value) is None


# --- evasion that is cheap to catch ----------------------------------------------------------------------------------


@pytest.mark.parametrize("gap", ["\n", "\r\n", "\n    ", "\\n", "\\\n", "\u200b"], ids=repr)
def test_a_token_of_fixed_length_that_is_wrapped_is_found_whole(gap: str) -> None:
    """By a terminal, a YAML block or an invisible character; at least the literal stands in one piece."""
    fixed = {"github-token", "hybridq-token", "npm-token", "aws-access-key-id", "google-api-key", "digitalocean-token"}
    wrapped = [s for s in ONE_WORD if s.rule in fixed and s.name != "github-fine-grained"]
    assert len(wrapped) >= 15
    for secret in wrapped:
        at = max(12, len(secret.value) - 10)
        clean, count = redact(f"see {secret.value[:at]}{gap}{secret.value[at:]} there")
        assert (f"see [redacted:{secret.rule}] there", 1) == (clean, count)


@pytest.mark.parametrize("gap", ["\n", "\r\n", "\\n"], ids=repr)
def test_a_jwt_over_several_lines_is_found_whole(gap: str) -> None:
    token = jwt({"alg": "RS256", "kid": "key-1"}) + chars(BASE62, 300)
    for width in (21, 33, 76):
        lines = gap.join(token[i : i + width] for i in range(0, len(token), width))
        assert "see [redacted:jwt]\nthere" == redact(f"see {lines}\nthere")[0]


def test_a_line_that_follows_a_token_is_no_part_of_it() -> None:
    for secret in ONE_WORD:
        if secret.name == "jwt-unsigned":
            continue  # it ends with a dot, after which a signature may come
        clean, _ = redact(f"{secret.value}\nNEXT_LINE_OF_THE_LOG12 and more")
        assert f"[redacted:{secret.rule}]\nNEXT_LINE_OF_THE_LOG12 and more" == clean


@each_alone
def test_repeated_and_adjacent_secrets_all_go(secret: Secret) -> None:
    for joint in (" ", "\n", ",", "/", "|", "", "_", "."):
        clean, count = redact(joint.join([secret.value] * 3))
        assert count >= 1
        assert pieces_left(secret.value, clean) == []
        assert find(clean) is None


def test_two_different_tokens_side_by_side_both_go() -> None:
    words = [secret for secret in ONE_WORD if len(secret.value) < 80]
    for first in words[::3]:
        for second in words[::4]:
            for joint in (" ", ",", "&", "\n"):
                clean, count = redact(first.value + joint + second.value)
                assert 2 == count
                assert f"[redacted:{first.rule}]{joint}[redacted:{second.rule}]" == clean


def test_a_github_token_glued_to_any_other_takes_nothing_from_it() -> None:
    github = next(secret for secret in SECRETS if secret.rule == "github-token")
    for secret in ONE_WORD:
        for text in (github.value + secret.value, secret.value + github.value):
            clean, _ = redact(text)
            assert pieces_left(github.value, clean) == []
            assert find(clean) is None


# --- places --------------------------------------------------------------------------------------------------------


def test_pointers_lead_to_the_string() -> None:
    token = ONE_WORD[0].value
    value = {"a/b": [{"m~n": token}, 1, {"": ["", f"x {token}"]}], "": token, "0": {"1": [[token]]}}

    pointers = [finding.pointer for finding in scan(value)]

    assert pointers == ["/a~1b/0/m~0n", "/a~1b/2//1", "/", "/0/1/0/0"]
    for finding in scan(value):
        assert token == resolve(value, finding.pointer)[finding.start : finding.end]


def test_a_pointer_continues_the_given_one() -> None:
    assert "/jobs/3/payload/x" == scan({"x": ONE_WORD[0].value}, "/jobs/3/payload")[0].pointer
    assert "/reason" == scan(ONE_WORD[0].value, "/reason")[0].pointer


@each_alone
def test_a_name_that_holds_a_secret_is_found_and_not_shown(secret: Secret) -> None:
    findings = scan({"outer": {secret.value: {"inner": secret.value}}})

    marker = f"[redacted:{secret.rule}]"
    assert [f"/outer/{marker}", f"/outer/{marker}/inner"] == [finding.pointer for finding in findings]
    for finding in findings:
        assert pieces_left(secret.value, repr(finding).replace(finding.rule, "")) == []


def test_names_that_become_the_same_are_told_apart() -> None:
    tokens = [secret.value for secret in SECRETS if secret.rule == "github-token"][:4]
    clean, count = redact_value({token: i for i, token in enumerate(tokens)} | {"[redacted:github-token]": 9})

    assert 4 == count
    assert [0, 1, 2, 3, 9] == sorted(clean.values())
    assert scan(clean) == []


PASSWORD = chars(BASE62, 22)


@pytest.mark.parametrize(
    "value, pointer",
    [
        ({"password": PASSWORD}, "/password"),
        ({"dbPassword": "Summer2024!"}, "/dbPassword"),
        ({"clientSecret": PASSWORD}, "/clientSecret"),
        ({"API_KEY": PASSWORD}, "/API_KEY"),
        ({"env": [{"name": "DB_PASSWORD", "value": PASSWORD}]}, "/env/0/value"),
        ({"env": [{"value": PASSWORD, "name": "AUTH_TOKEN"}]}, "/env/0/value"),
        ({"tokens": ["", PASSWORD]}, "/tokens/1"),
        ({"argv": ["deploy", "--password", PASSWORD]}, "/argv/2"),
        ({"argv": ["deploy", f"--password={PASSWORD}"]}, "/argv/1"),
        ({"sealed": f"password={PASSWORD}"}, "/sealed"),
        ({"sealed": ONE_WORD[0].value}, "/sealed"),
        ({"secret_ref": ONE_WORD[0].value}, "/secret_ref"),
        ({"secret_ref": f"https://x?token={PASSWORD}"}, "/secret_ref"),
        ({"secret_ref": f"env://{ONE_WORD[0].value}"}, "/secret_ref"),
    ],
    ids=lambda value: str(value)[:30] if isinstance(value, str) else "",
)
def test_names_around_a_value_are_its_context(value: Any, pointer: str) -> None:
    """`sealed` and `secret_ref` let pass what has their form, and not whatever stands under them."""
    assert [pointer] == [finding.pointer for finding in scan(value)]

    clean, count = redact_value(value)
    assert 1 == count
    assert PASSWORD not in json.dumps(clean)
    assert scan(clean) == []


def test_redaction_keeps_everything_else() -> None:
    token = ONE_WORD[0].value
    value = {
        "n": 1,
        "f": 1.5,
        "none": None,
        "list": [True, f"a {token} b", []],
        "empty": {},
        "deep": {"x": {"y": token}},
    }
    before = json.dumps(value)

    clean, count = redact_value(value)

    assert 2 == count
    assert before.replace(token, f"[redacted:{ONE_WORD[0].rule}]") == json.dumps(clean)
    assert before == json.dumps(value), "the original is left as it was"


def test_findings_are_bounded_and_redaction_is_not() -> None:
    value = [ONE_WORD[0].value] * (FINDINGS_MAX + 50)

    assert FINDINGS_MAX == len(scan(value))
    assert FINDINGS_MAX + 50 == redact_value(value)[1]


def test_a_document_may_be_deep() -> None:
    value: Any = ONE_WORD[0].value
    for _ in range(20_000):
        value = [value]

    assert "/0" * 20_000 == scan(value)[0].pointer
    assert 1 == redact_value(value)[1]


def test_every_marker_is_clean() -> None:
    """Also side by side, under a name, and in a header."""
    rules = {secret.rule for secret in SECRETS} | {shape.rule for shape in guard._SHAPES.values()}
    for rule in rules:
        marker = f"[redacted:{rule}]"
        for text in (marker, marker * 3, f"password={marker}", f"Authorization: Bearer {marker}", f"a://b:{marker}@c"):
            assert find(text) is None
        assert scan({"password": marker, marker: marker, "_authToken": marker}) == []


def test_rule_ids_are_plain_words() -> None:
    """They stand in problem documents and in logs."""
    for shape in guard._SHAPES.values():
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", shape.rule)


# --- any text ------------------------------------------------------------------------------------------------------

fragments = st.one_of(
    st.sampled_from([secret.text for secret in SECRETS if len(secret.text) < 300]),
    st.sampled_from([secret.value[:20] for secret in SECRETS]),
    st.sampled_from([text for text in HARMLESS if len(text) < 200]),
    st.sampled_from(sorted(guard._SHAPES)),
    st.sampled_from(
        ["password=", "token: ", "Bearer ", "Basic ", "secret", "://a:", "@b", "[redacted:jwt]", "\n", "\\n", '"']
    ),
    st.text(max_size=12),
    st.text("ABCabc019_-./=+:", max_size=40),
)
texts = st.lists(fragments, max_size=8).map("".join)
names = st.one_of(
    st.sampled_from(["password", "token", "name", "value", "sealed", "secret_ref", "key", "--token"]), texts
)
documents = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), texts, names),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(names, inner, max_size=4)),
    max_leaves=10,
)


@given(texts)
@settings(max_examples=400, deadline=None)
def test_redaction_leaves_nothing_to_find(text: str) -> None:
    clean, count = redact(text)

    assert (count > 0) == (find(text) is not None)
    assert find(clean) is None
    assert (clean, 0) == redact(clean)


@given(documents)
@settings(max_examples=400, deadline=None)
def test_a_redacted_document_is_clean(value: Any) -> None:
    clean, count = redact_value(value)

    assert (count > 0) == bool(scan(value))
    assert scan(clean) == []
    assert (clean, 0) == redact_value(clean)


@given(st.text())
@settings(max_examples=300, deadline=None)
def test_arbitrary_text_never_raises(text: str) -> None:
    """Lone surrogates included: what JSON may hold, the guard may see."""
    for each in (text, text + "\ud800", f"password={text}", f"eyJ{text}.{text}.x", f"://{text}:{text}@x"):
        find(each)
        redact(each)
        scan({each: [each]})


# --- cost ----------------------------------------------------------------------------------------------------------

MEBIBYTE = 1 << 20


def seconds(work: Callable[[], object], rounds: int = 3) -> float:
    """The best of some rounds, in time of this thread, so that neighbours on the machine do not count."""
    best = float("inf")
    for _ in range(rounds):
        begin = time.thread_time()
        work()
        best = min(best, time.thread_time() - begin)
    return best


@pytest.fixture(scope="module")
def baseline_s() -> float:
    """A mebibyte of ordinary log lines that no rule looks at twice."""
    line = "2025-03-01T10:15:00Z step 12: compiling src/main.c -O2 -o build/main.o, warning: unused variable\n"
    text = line * (MEBIBYTE // len(line))
    return seconds(lambda: redact(text))


def _attacks() -> dict[str, str]:
    attacks: dict[str, str] = {}
    for literal in sorted(guard._SHAPES):
        attacks[f"{literal} alone"] = literal
        attacks[f"{literal} almost"] = literal + "aB3" * 5 + "!"
        attacks[f"{literal} spaced"] = f" {literal}0aB1cD2e "
    attacks |= {secret.name: secret.value[: max(12, len(secret.value) - 1)] + " " for secret in SECRETS}
    for name in ("password", "token", "secret", "api_key", "auth", "authorization: bearer ", "basic ", "--token "):
        attacks |= {f"{name} x": name, f"{name}=": name + "=", f"{name} value": f"{name}=aaaabbbbcccc1 "}
    return attacks | {
        "header": "eyJ",
        "headers": "-eyJhbGci",
        "headers with dots": jwt({"alg": "none"}).split(".")[0] + ".",
        "dots": "a.",
        "dashes": "-",
        "begin": "-" * 5 + "BEGIN RSA PRIVATE " + "KEY-----",
        "begin and dashes": "-" * 5 + "BEGIN PRIVATE " + "KEY------ - -- ---",
        "wrapped": "gh" + "p_abcdefghijkl\n",
        "wrapped lines": "eyJhbcdefghijklm\n",
        "colons": "://a:",
        "urls": "://:::",
        "letters": "a",
        "digits": "1234567890",
        "capitals": "A",
        "url64": "aB3-_",
        "netrc": "machine a login b ",
        "spaces": "password   ",
        "quotes": 'password":"',
        "dotless": "İtoken=",
        "telegram": "1234567890:AA",
        "sas": "sig=" + "a" * 43 + "=",
    }


ATTACKS = _attacks()


def test_no_text_costs_more_than_its_length(baseline_s: float) -> None:
    """64 KiB of each literal, name or near miss again and again: within a factor of plain text of that length.

    A pattern that backtracks over its text would be thousands of times slower.
    """
    size = MEBIBYTE // 16
    slow = {}
    for name, piece in ATTACKS.items():
        text = piece * (size // len(piece))
        allowed_s = 200 * baseline_s / 16
        if seconds(partial(redact, text), 1) > allowed_s and (took_s := seconds(partial(redact, text))) > allowed_s:
            slow[name] = round(took_s / baseline_s * 16)
    assert slow == {}


@pytest.mark.parametrize(
    "name", ["header", "headers", "wrapped", "wrapped lines", "begin", "colons", "letters", "url64"]
)
def test_twice_the_text_costs_about_twice(name: str) -> None:
    """The ones with the longest reach, from a quarter of a mebibyte to a half."""
    piece = ATTACKS[name]
    half, whole = (piece * (size // len(piece)) for size in (MEBIBYTE // 4, MEBIBYTE // 2))

    assert seconds(lambda: redact(whole)) < 3.2 * seconds(lambda: redact(half))


def test_wide_documents_cost_no_more_than_their_size(baseline_s: float) -> None:
    """Pointers are written for findings alone, and many equal names are counted, not searched."""
    github = "gh" + "p_"
    documents: list[Any] = [
        {"n" * 100_000: {str(i): "token" for i in range(30_000)}},
        {github + f"{i:036x}".translate(str.maketrans("0", "Z")): i for i in range(5_000)},
    ]
    for document in documents:
        assert seconds(lambda document=document: (scan(document), redact_value(document)), 1) < 300 * baseline_s


# --- signed jobs ---------------------------------------------------------------------------------------------------


JOB_HEADER = {"alg": "Ed25519", "kid": "5qXZPqNvZB3Bwz8z", "typ": "hybridq-job"}
JOB = {"v": 1, "pool": "linux", "nonce": chars(BASE62, 32), "steps": [{"name": "test", "run": "make test"}]}


def signed(job: Any, header: Any = JOB_HEADER, signature_chars: int = 86) -> str:
    parts = [json.dumps(part, separators=(",", ":")).encode() for part in (header, job)]
    return ".".join([*map(url64, parts), chars(BASE62, signature_chars)])


@pytest.mark.parametrize(
    "at_payload",
    [
        lambda payload: {"payload": payload, "type": "build"},
        lambda payload: {"jobs": [{"payload": {"steps": []}}, {"payload": payload}]},
        lambda payload: {"cron": "0 3 * * *", "job": {"payload": payload}},
    ],
    ids=["job", "batch", "schedule"],
)
def test_a_signed_job_passes_as_a_payload(at_payload: Callable[[Any], Any]) -> None:
    assert scan(at_payload({"signed": signed(JOB)})) == []


@pytest.mark.parametrize(
    "elsewhere",
    [
        lambda payload: payload,
        lambda payload: {"result": payload},
        lambda payload: {"tags": payload},
        lambda payload: {"payload": [payload]},
        lambda payload: {"payload": {"payload": payload}},
        lambda payload: {"job": {"job": {"payload": payload}}},
        lambda payload: {"jobs": {"payload": payload}},
        lambda payload: {"jobs": [[{"payload": payload}]]},
        lambda payload: {"jobs": [{"job": {"payload": payload}}]},
        lambda payload: {"payload": {**payload, "steps": []}},
        lambda payload: {"payload": payload["signed"]},
        lambda payload: {"payload": {"sealed": payload["signed"]}},
        lambda payload: {"payload": {"signed": "x " + payload["signed"]}},
        lambda payload: {"payload": {"Signed": payload["signed"]}},
    ],
    ids=range(14),
)
def test_a_signed_job_passes_nowhere_else(elsewhere: Callable[[Any], Any]) -> None:
    """A JWS is a token until it is known to be none; where results come back it is taken out."""
    value = elsewhere({"signed": signed(JOB)})

    assert ["jwt"] == [finding.rule for finding in scan(value)]
    assert 1 == redact_value(value)[1]
    assert find(signed(JOB)) is not None


@pytest.mark.parametrize(
    "token",
    [
        signed(JOB, {**JOB_HEADER, "alg": "EdDSA"}),
        signed(JOB, {**JOB_HEADER, "alg": "none"}),
        signed(JOB, {**JOB_HEADER, "typ": "JWT"}),
        signed(JOB, {**JOB_HEADER, "jku": "https://example.com/keys"}),
        signed(JOB, {"alg": "Ed25519", "typ": "hybridq-job"}),
        signed(JOB, {**JOB_HEADER, "kid": ONE_WORD[0].value}),
        signed(JOB, signature_chars=85),
        signed({"sub": "repo:acme/app", "aud": "https://ci.example.com"}),
        signed([JOB]),
        jwt({"alg": "Ed25519", "kid": "a", "typ": "hybridq-job"}),
    ],
    ids=range(10),
)
def test_another_token_does_not_pass_as_a_signed_job(token: str) -> None:
    assert ["/payload/signed"] == [finding.pointer for finding in scan({"payload": {"signed": token}})]


@pytest.mark.parametrize("inside", [{"env": {"DB_PASSWORD": PASSWORD}}, {"git": {"repo": ONE_WORD[0].value}}])
def test_a_secret_inside_a_signed_job_is_found(inside: dict[str, Any]) -> None:
    """A signature hides nothing: whoever can read the queue reads what is signed."""
    value = {"jobs": [{"payload": {"signed": signed({**JOB, **inside})}}]}

    [finding] = scan(value)

    assert "/jobs/0/payload/signed" == finding.pointer
    assert (0, len(value["jobs"][0]["payload"]["signed"])) == (finding.start, finding.end)
    assert "jwt" != finding.rule


def test_a_signed_job_inside_a_signed_job_is_a_token() -> None:
    inner = {**JOB, "payload": {"signed": signed(JOB)}}

    assert ["jwt"] == [finding.rule for finding in scan({"payload": {"signed": signed(inner)}})]


def test_a_signed_job_that_nests_too_deep_is_no_job() -> None:
    deep = "[" * 100_000
    head = url64(json.dumps(JOB_HEADER).encode())
    token = f"{head}.{url64(deep.encode())}.{chars(BASE62, 86)}"

    assert ["/payload/signed"] == [finding.pointer for finding in scan({"payload": {"signed": token}})]
