"""What a secret looks like: the shapes that never enter the queue, and are taken out of what agents send back.

Nothing here knows a value after it has looked at it: a `Finding` says where and which rule. Three kinds of rules:

* shapes: a literal that the issuer puts into its tokens, then a body of known length and alphabet. One regular
  expression of all literals looks at a text; only where it stops are rules asked, so a clean text costs one pass;
* signed shapes: JWTs, Discord's tokens, GitHub's and npm's checksums. What is decoded is the token itself, never a
  blob that might hold one. A signed job alone is a JWS that may come in, as a job's payload, and its content is read;
* context: a name that promises a secret (`password=`, `Authorization: Bearer`, the key of a JSON member), followed by
  a value that no person would choose as a name. Without such a name nothing is judged by its randomness.

Every pattern is bounded, or runs over its text once, so the time grows with the length of the text alone.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Final

__all__ = ["Finding", "find", "redact", "redact_value", "scan"]


FINDINGS_MAX: Final = 100
PASSES_MAX: Final = 8


@dataclass(frozen=True, slots=True)
class Finding:
    """A secret is here: the rule's stable id, a JSON pointer (RFC 6901), and where in that string. Never the value.

    A member's name that holds a secret stands in the pointer in its redacted form.
    """

    rule: str
    pointer: str
    start: int
    end: int


def find(text: str) -> Finding | None:
    """Return the first secret in `text`, or None."""
    if not _suspicious(text):
        return None
    spans = _spans(text)
    return Finding(spans[0].rule, "", spans[0].start, spans[0].end) if spans else None


def scan(value: Any, pointer: str = "") -> list[Finding]:
    """Return the secrets in decoded JSON, members' names included, in the order of the document: the first 100.

    `pointer` is where `value` stands in a larger document. A member's name is context for its value; a secret in a
    name is reported at that member. A signed job, `{"signed": …}` as the whole payload of a job, is looked into: what
    is signed must be as clean as what is not.
    """
    return _scan(value, pointer, at_payload=_is_payload)


def _scan(value: Any, pointer: str, at_payload: Callable[[_Place], bool]) -> list[Finding]:
    if not _suspicious("\n".join(_strings(value))):
        return []
    findings: list[Finding] = []
    # Pointers are chains until one is needed: written out for every string they would grow as depth times width.
    todo: list[tuple[Any, _Place, _Context]] = [(value, None, _NO_CONTEXT)]
    while todo and len(findings) < FINDINGS_MAX:
        node, place, context = todo.pop()
        if isinstance(node, str):
            spans = _spans_in(node, context)
            here = _written(pointer, place) if spans else ""
            findings += [Finding(span.rule, here, span.start, span.end) for span in spans]
        elif isinstance(node, dict) and node.keys() == {"signed"} and at_payload(place) and (job := _signed_job(node)):
            inside = _scan(job, "", at_payload=lambda _: False)
            here = _written(pointer, (place, "signed")) if inside else ""
            findings += [Finding(found.rule, here, 0, len(node["signed"])) for found in inside]
        elif isinstance(node, dict):
            members: list[tuple[Any, _Place, _Context]] = []
            for key, member in node.items():
                below = (place, str(key))
                members.append((str(key), below, _NO_CONTEXT))
                members.append((member, below, _context_of(str(key), node, context)))
            todo += reversed(members)
        elif isinstance(node, (list, tuple)):
            todo += [(node[i], (place, i), _beside(node, i, context)) for i in reversed(range(len(node)))]
    return findings[:FINDINGS_MAX]


def redact(text: str) -> tuple[str, int]:
    """Return `text` with `[redacted:<rule>]` in the place of each secret, and how many there were."""
    return _redact_in(text, _NO_CONTEXT) if _suspicious(text) else (text, 0)


def redact_value(value: Any) -> tuple[Any, int]:
    """Return decoded JSON without its secrets, and how many there were; the same object when there were none.

    Names of members are redacted too; two that become the same are told apart by a number.
    """
    count = 0
    for _ in range(PASSES_MAX):
        if not _suspicious("\n".join(_strings(value))):
            break
        # Again, because a name without its secret may say something else about its value.
        value, n = _redact_once(value)
        count += n
        if not n:
            break
    return value, count


def _redact_once(value: Any) -> tuple[Any, int]:
    count = 0
    top: list[Any] = [value]
    # Each entry: a fresh container in which `place` still holds the original.
    todo: list[tuple[Any, Any, _Context]] = [(top, 0, _NO_CONTEXT)]
    while todo:
        holder, place, context = todo.pop()
        node = holder[place]
        if isinstance(node, str):
            holder[place], n = _redact_in(node, context)
            count += n
        elif isinstance(node, dict):
            fresh: dict[Any, Any] = {}
            numbers: dict[str, int] = {}
            for key, member in node.items():
                name = key
                if isinstance(key, str):
                    name, n = redact(key)
                    count += n
                    name = _unlike(name, fresh, node, numbers) if n else name
                fresh[name] = member
                todo.append((fresh, name, _context_of(str(key), node, context)))
            holder[place] = fresh
        elif isinstance(node, (list, tuple)):
            holder[place] = list(node)
            todo += [(holder[place], i, _beside(node, i, context)) for i in range(len(node))]
    return (top[0], count) if count else (value, 0)


# --- one text ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Span:
    """Part of a text that a rule calls a secret. Of spans that overlap, the one with the lowest `rank` names it."""

    start: int
    end: int
    rule: str
    rank: int = 0


def _redact_in(text: str, context: _Context) -> tuple[str, int]:
    count = 0
    for _ in range(PASSES_MAX):
        spans = _spans_in(text, context)
        if not spans:
            return text, count
        count += len(spans)
        parts: list[str] = []
        end = 0
        for span in spans:
            parts += (text[end : span.start], f"[redacted:{span.rule}]")
            end = span.end
        text = "".join(parts) + text[end:]
    # Markers are no secrets, so one of them alone is clean however the rules may have chased each other.
    spans = _spans_in(text, context)
    return (f"[redacted:{spans[0].rule}]", count + len(spans)) if spans else (text, count)


def _spans_in(text: str, context: _Context) -> list[_Span]:
    if context.opaque and _is_opaque(text, context):
        return [span for span in _shapes(text) if context.opaque == "secret_ref" or span.start == 0]
    spans = _spans(text)
    if context.name and not any(span.rank == 0 and (span.start, span.end) == (0, len(text)) for span in spans):
        rule = _promised(context.name, text)
        if rule:
            spans = _merged([*spans, _Span(0, len(text), rule, 1)])
    return spans


def _spans(text: str) -> list[_Span]:
    spans = _shapes(text)
    if _may_be_dotted(text):
        spans += _dotted_tokens(text)
    lowered = _lowered(text)
    if _has_hint(lowered):
        spans += _assignments(text, lowered)
        spans += _authorizations(text, lowered)
        spans += _netrc(text, lowered)
    return _merged(spans) if spans else spans


def _merged(spans: Iterable[_Span]) -> list[_Span]:
    result: list[_Span] = []
    for span in sorted(spans, key=lambda span: (span.start, span.rank, -span.end)):
        if result and span.start < result[-1].end:
            last = result[-1]
            named = span if span.rank < last.rank else last
            result[-1] = replace(named, start=last.start, end=max(last.end, span.end))
        else:
            result.append(span)
    return result


def _suspicious(text: str) -> bool:
    """Whether any rule could find something: the whole cost of a clean text."""
    return _SPOT.search(text) is not None or _may_be_dotted(text) or _has_hint(_lowered(text))


def _lowered(text: str) -> str:
    """Return the text in lower case, of the same length, so that positions hold in both."""
    return text.lower() if text.isascii() else text.replace("\u0130", "I").lower()


# --- shapes --------------------------------------------------------------------------------------------------------

_Check = Callable[[str], bool]
_Settle = Callable[[str, int, int], "int | None"]


@dataclass(frozen=True, slots=True)
class _Shape:
    rule: str
    pattern: re.Pattern[str]
    """From the literal on. Group `value`, where there is one, is the secret."""
    before: re.Pattern[str] | None
    """What stands before the literal and belongs to the token; ends in `$`."""
    check: _Check | None
    """Asked about the token; what it refuses is a look-alike."""
    proof: _Check | None
    """A checksum that holds proves the token wherever it stands. One that does not hold proves nothing: it may be of
    a server with another recipe."""
    loose: bool
    """The literal is short, so it counts only at the beginning of a word."""
    whole: bool
    """The rest of the word belongs to the token."""
    settle: _Settle | None
    """Says where the secret ends, given text, begin and end of the match; None: it is none."""


_SHAPES: Final[dict[str, _Shape]] = {}
_GUARDS: Final[dict[str, str]] = {}
_WORD: Final = re.compile(r"[A-Za-z0-9_\-]*+")
_BREAK: Final = r"(?:\\?\r?\n[ \t]{0,8}|\\r\\n|\\n|[\u00ad\u200b-\u200d\u2060\ufeff])"
_WRAPPED: Final = re.compile(r"[A-Za-z0-9_.+/=\-]{8,512}+" + _BREAK + r"(?=[A-Za-z0-9_.+/=\-])")
_BREAKS: Final = re.compile(_BREAK)
WRAPPED_CHARS_MAX: Final = 256
_AFTER_ESCAPE: Final = re.compile(
    r"(?:\\[abefnrtv]|\\u[0-9A-Fa-f]{4}|\\x[0-9A-Fa-f]{2}|%[0-9A-Fa-f]{2}|\x1b\[[0-9;]{0,8}m)$"
)


def _shape(
    rule: str,
    literals: str,
    body: str,
    *,
    before: str | None = None,
    check: _Check | None = None,
    proof: _Check | None = None,
    loose: bool = False,
    whole: bool = True,
    settle: _Settle | None = None,
    guard: str = r"[A-Za-z0-9_\-]{8}",
) -> None:
    """Add a rule: any of `literals`, then `body`. `guard` is a cheap necessary beginning of the body."""
    for literal in literals.split():
        literal = literal.replace("␣", " ")
        pattern = re.compile(re.escape(literal) + body, re.ASCII)
        lead = re.compile(before + "$") if before else None
        _SHAPES[literal] = _Shape(rule, pattern, lead, check, proof, loose, whole, settle)
        _GUARDS[literal] = guard


def _shapes(text: str) -> list[_Span]:
    spans: list[_Span] = []
    covered = -1
    for hit in _SPOT.finditer(text):
        shape, back = _MEANINGS[(hit.lastindex or 1) - 1]
        at = hit.start() - back
        found = _match(shape, text, at)
        if found is None:
            continue
        start, end, token = found
        if shape.proof is None or not shape.proof(token):
            # A token that is glued to another one is as good as a word of its own.
            if shape.loose and start > covered and not _begins_word(text, start):
                continue
            if shape.check and not shape.check(token):
                continue
        if shape.whole and end > covered:
            rest = _WORD.match(text, end)
            end = rest.end() if rest else end
        if shape.settle:
            settled = shape.settle(text, start, end)
            if settled is None:
                continue
            end = settled
        covered = max(covered, end)
        spans.append(_Span(start, end, shape.rule))
    return spans


def _match(shape: _Shape, text: str, at: int) -> tuple[int, int, str] | None:
    """Return begin, end and text of the token whose literal stands at `at`, a wrapped one unwrapped."""
    start = at
    if shape.before:
        lead = shape.before.search(text[max(0, at - 64) : at])
        if lead is None:
            return None
        start = at - (lead.end() - lead.start())
    match = shape.pattern.match(text, at)
    if match:
        group = "value" if "value" in shape.pattern.groupindex else 0
        start = match.start(group) if group else start
        return start, match.end(group), text[start : match.end(group)]
    if not shape.whole or not _WRAPPED.match(text, at):
        return None
    window = text[at : at + WRAPPED_CHARS_MAX]
    match = shape.pattern.match(_BREAKS.sub("", window))
    if match is None:
        return None
    end = match.end()
    for gap in _BREAKS.finditer(window):
        if gap.start() >= end:
            break
        end += gap.end() - gap.start()
    return start, at + end, text[start:at] + match[0]


def _begins_word(text: str, start: int) -> bool:
    if start == 0 or not (text[start - 1].isascii() and text[start - 1].isalnum()):
        return True
    return _AFTER_ESCAPE.search(text[max(0, start - 12) : start]) is not None


def _is_varied(token: str) -> bool:
    """A body of one letter again and again stands for a token and is none."""
    return len(set(token[-16:].lower())) > 2


def _is_mixed(token: str) -> bool:
    """The body is no name: its letters and digits, or capital and small letters, are mixed as no writer does."""
    body = _NOT_ALNUM.sub("", _FIRST_JOINT.split(token[:80], maxsplit=1)[-1])
    if len(set(body)) < 6:
        return False
    return (_DIGIT.search(body) is not None and len(_EDGE.findall(body)) >= 2 and _wordiness(body) <= 0.85) or (
        _is_wordless(body)
    )


_NOT_ALNUM: Final = re.compile(r"[^A-Za-z0-9]+")
_FIRST_JOINT: Final = re.compile(r"[_.\-]")
BASE62: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def _has_checksum(token: str) -> bool:
    """The last six of 36 characters are the CRC-32 of the others in base 62: GitHub's recipe, and npm's."""
    body = token[-36:]
    rest, digits = binascii.crc32(body[:-6].encode()), ""
    for _ in range(6):
        rest, digit = divmod(rest, 62)
        digits = BASE62[digit] + digits
    return digits == body[-6:]


def _is_password(text: str) -> bool:
    return not _PLACEHOLDER.fullmatch(text)


_AZURE_QUERY: Final = re.compile(r"(?:^|[?&;\s\"'])s[vepr]=")


def _end_of_sas(text: str, start: int, end: int) -> int | None:
    """A signature counts beside what it signs."""
    return end if _AZURE_QUERY.search(text, max(0, start - 512), end + 256) else None


_TO_DASHES: Final = re.compile(r"[^-]*+(?:-(?!---)[^-]*+)*+")
_END: Final = re.compile(r"-{4,5} ?END [A-Z0-9 ]{0,64}PRIVATE KEY(?: BLOCK)? ?-{4,5}")
_GAP: Final = r"(?:\s|\\+[nrt]|[\"'+,>|\\])*+"
_BASE64_LINES: Final = rf"(?:{_GAP}[A-Za-z0-9+/]{{16,}}+=*+)"
_LAST_LINE: Final = rf"(?:{_GAP}[A-Za-z0-9+/]{{1,15}}={{1,2}})?"
_CUT_OFF: Final = re.compile(rf"(?:{_GAP}[A-Za-z-]{{3,20}}: [^\n\\]{{1,200}})*+{_BASE64_LINES}*+{_LAST_LINE}")
_NOT_KEY: Final = re.compile(r"[A-Za-z-]{3,20}: [^\n\\]{0,200}|\\+[nrt]|[\s\"'+,>|\\]")


def _end_of_pem(text: str, start: int, end: int) -> int | None:
    """The END line, or where a block that was cut off no longer looks like Base64. Three dots or advice are no key."""
    body = _TO_DASHES.match(text, end)
    end_line = _END.match(text, body.end()) if body else None
    if body is None or end_line is None:
        body = _CUT_OFF.match(text, end)
    if body is None:
        return None
    key = _NOT_KEY.sub("", body[0][:4096])
    if len(key) < 32 or len(re.findall(r"[A-Za-z0-9/=]", key)) < 0.9 * len(key) or not _is_random(key[:128]):
        return None
    return end_line.end() if end_line else body.end()


_PUTTY_LINES: Final = re.compile(f"{_BASE64_LINES}++{_LAST_LINE}")


def _end_of_putty(text: str, start: int, end: int) -> int | None:
    lines = _PUTTY_LINES.match(text, end)
    return lines.end() if lines else None


def _user_id(token: str) -> bool:
    """Discord's tokens begin with the bot's number in Base64."""
    return (_decoded(token.split(".", 1)[0]) or b"x").isdigit()


def _decoded(text: str) -> bytes | None:
    try:
        return base64.b64decode(
            text.rstrip("=").translate(_STANDARD) + "=" * (-len(text.rstrip("=")) % 4), validate=True
        )
    except (binascii.Error, ValueError):
        return None


_STANDARD: Final = str.maketrans("-_", "+/")
HEX: Final = r"[0-9a-f]"
ALNUM: Final = r"[A-Za-z0-9]"
URL64: Final = r"[A-Za-z0-9_\-]"

# Our own: <prefix>_<12 id><43 secret><6 checksum>, told by its shape, so that a mistyped one is not stored either.
_shape("hybridq-token", "hqk_ hqr_ hqa_ hqn_ hqs_", ALNUM + "{61}")
# Ours as well: the private keys that sign jobs and open sealed payloads.
_shape("hybridq-private-key", "hqsign_ hqopen_", URL64 + "{48}")
# Code hosts.
_shape("github-token", "ghp_ gho_ ghu_ ghs_ ghr_", ALNUM + "{36}", check=_is_varied, proof=_has_checksum, loose=True)
_shape("github-token", "github_pat_", r"\w{40,255}", check=_is_varied)
_shape(
    "gitlab-token",
    "glpat- glrt- gldt- glptt- glft- glcbt- glimt- gloas- glsoat- glagent- glffct- glrtr- glwt- GR1348941",
    URL64 + r"{20,300}+(?:\.[0-9a-z]{2}\.[0-9a-z]{7,9})?",
    check=_is_mixed,
)
_shape("bitbucket-token", "ATBB", ALNUM + r"{32}(?![A-Za-z0-9+/])", check=_is_mixed, loose=True)
_shape("atlassian-token", "ATATT3 ATCTT3", r"[A-Za-z0-9_\-=]{60,300}", check=_is_mixed)
# Clouds.
_shape("aws-access-key-id", "AKIA ASIA", r"[A-Z0-9]{16}(?=[^A-Z0-9]|\Z|A[KS]IA)", check=_is_varied, loose=True)
_shape("google-api-key", "AIza", URL64 + "{35}", check=_is_varied, loose=True)
_shape("google-oauth-token", "ya29.", r"[A-Za-z0-9_\-]{20,1024}", check=_is_mixed, loose=True)
_shape("google-oauth-secret", "GOCSPX-", URL64 + "{28}", check=_is_varied)
_shape(
    "azure-storage-key",
    "AccountKey= accountkey= SharedAccessKey= sharedaccesskey=",
    r"(?P<value>[A-Za-z0-9+/]{86}==|[A-Za-z0-9+/]{43}=)",
    guard=r"[A-Za-z0-9+/]{43}",
    whole=False,
)
_shape(
    "azure-sas",
    "sig=",
    r"(?P<value>(?:[A-Za-z0-9+/_\-]|%(?:2[BbFf])){43}(?:=|%3[Dd]))",
    guard=r"[A-Za-z0-9+/%_\-]{43}",
    whole=False,
    settle=_end_of_sas,
)
_shape("azure-client-secret", "Q~", r"[A-Za-z0-9_~.\-]{31,34}", before=r"[A-Za-z0-9_~.\-]{3}\d", check=_is_mixed)
_shape("digitalocean-token", "dop_v1_ doo_v1_ dor_v1_", HEX + "{64}", check=_is_varied)
_shape("alibaba-access-key-id", "LTAI", ALNUM + r"{20}(?![A-Za-z0-9+/])", check=_is_mixed, loose=True)
_shape("databricks-token", "dapi", HEX + r"{32}(?:-\d)?(?=dapi|[^0-9a-f]|\Z)", check=_is_varied, loose=True)
_shape("heroku-api-key", "HRKU-", URL64 + "{36,80}", check=_is_mixed)
_shape("netlify-token", "nfp_ nfc_ nfo_ nfb_", ALNUM + "{36,64}", check=_is_mixed, loose=True)
_shape("supabase-token", "sbp_", HEX + "{40}", check=_is_varied, loose=True)
_shape("planetscale-token", "pscale_tkn_ pscale_oauth_ pscale_pw_", r"[\w=.\-]{32,64}", check=_is_mixed)
_shape("flyio-token", "FlyV1␣fm2_ fm2_ fo1_", r"[A-Za-z0-9_\-+/=]{40,512}", check=_is_mixed, loose=True)
_shape("pulumi-token", "pul-", HEX + "{40}", check=_is_varied, loose=True)
# Vaults.
_shape("vault-token", "hvs. hvb. hvr.", URL64 + "{24,512}", check=_is_mixed, loose=True)
_shape("vault-token", "s.", ALNUM + r"{24}(?=s\.|[^A-Za-z0-9]|\Z)", check=_is_mixed, loose=True, guard=ALNUM + "{24}")
_shape(
    "terraform-cloud-token",
    ".atlasv1.",
    r"[A-Za-z0-9_\-]{40,100}",
    before=r"[A-Za-z0-9]{14}",
)
_shape(
    "doppler-token",
    "dp.pt. dp.st. dp.ct. dp.sa. dp.scim. dp.audit.",
    r"(?:\w{2,35}\.)?[A-Za-z0-9]{40,44}",
    loose=True,
    guard=r"\w\w",
)
_shape("onepassword-token", "ops_eyJ", r"[A-Za-z0-9+/_\-]{100,4096}=*")
_shape("age-secret-key", "AGE-SECRET-KEY-1", r"[0-9A-Z]{58}", check=_is_varied)
# Chat.
_shape(
    "slack-token",
    "xoxa- xoxb- xoxp- xoxr- xoxs- xoxe- xoxo- xoxe. xapp-",
    r"(?:xox[bp]-)?[A-Za-z0-9\-]{10,250}",
    check=lambda token: any(map(str.isdigit, token)) and _is_varied(token) and len(token) >= 20,
)
_shape(
    "slack-webhook",
    "hooks.slack.com/",
    r"(?P<value>(?:services|workflows|triggers)/[A-Za-z0-9+/_\-]{20,200})",
    guard="[swt]",
    whole=False,
)
_shape("discord-webhook", "/api/webhooks/", r"\d{16,20}/(?P<value>[A-Za-z0-9_\-]{60,80})", guard=r"\d{16}", whole=False)
_shape(
    "discord-token",
    ".",
    r"[A-Za-z0-9_\-]{6,7}\.[A-Za-z0-9_\-]{27,38}",
    before=r"[MNO][A-Za-z0-9_\-]{23,27}",
    check=_user_id,
    guard=r"[A-Za-z0-9_\-]{6,7}\.[A-Za-z0-9_\-]{27}",
)
_shape("telegram-token", ":AA", URL64 + r"{32,33}", before=r"(?<!\d)\d{8,10}", check=_is_varied, guard=URL64 + "{32}")
# Payment, post, telephone, shops.
_shape("stripe-key", "sk_live_ rk_live_ sk_test_ rk_test_ sk_prod_ rk_prod_", ALNUM + "{16,250}", check=_is_mixed)
_shape("stripe-webhook-secret", "whsec_", r"[A-Za-z0-9+/]{24,64}=*", check=_is_mixed)
_shape("twilio-api-key", "SK", HEX + r"{32}(?![0-9a-f])", check=_is_varied, loose=True, guard=HEX + "{32}")
_shape("sendgrid-key", "SG.", URL64 + r"{20,24}\." + URL64 + "{39,50}", loose=True, guard=URL64 + r"{20,24}\.")
_shape("shopify-token", "shpat_ shpca_ shppa_ shpss_", r"[0-9a-fA-F]{32}", check=_is_varied)
# Package registries and builders.
_shape("npm-token", "npm_", ALNUM + "{36}", check=_is_mixed, proof=_has_checksum, loose=True)
_shape("pypi-token", "pypi-AgE", URL64 + "{50,512}")
_shape("docker-token", "dckr_pat_ dckr_oat_", URL64 + "{24,64}", check=_is_mixed)
_shape("rubygems-token", "rubygems_", HEX + "{48}", check=_is_varied)
_shape("buildkite-token", "bkua_ bkct_ bkpt_", ALNUM + "{40,64}", check=_is_mixed, loose=True)
_shape("circleci-token", "CCIPAT_ CCIPRJ_", ALNUM + r"{16,32}_[0-9a-f]{40}")
_shape("sonar-token", "sqp_ sqa_ squ_", HEX + "{40}", check=_is_varied, loose=True)
# Models.
_shape("anthropic-key", "sk-ant-", r"[a-z]{2,8}\d\d-[A-Za-z0-9_\-]{20,200}", check=_is_mixed)
_shape(
    "openai-key", "sk-proj- sk-svcacct- sk-admin- sk-None- sk-or-v1-", URL64 + "{20,250}", check=_is_mixed, loose=True
)
_shape("openai-key", "sk-", ALNUM + r"{32,64}(?![A-Za-z0-9])", check=_is_mixed, loose=True)
_shape("huggingface-token", "hf_ api_org_", ALNUM + r"{34,40}", check=_is_mixed, loose=True)
_shape("groq-key", "gsk_", ALNUM + "{48,56}", check=_is_mixed, loose=True)
_shape("replicate-token", "r8_", ALNUM + "{37}", check=_is_mixed, loose=True)
# Watching and planning.
_shape("grafana-token", "glsa_", ALNUM + r"{32}_[0-9a-fA-F]{8}")
_shape("grafana-token", "glc_eyJ", r"[A-Za-z0-9+/_\-]{32,400}=*")
_shape("new-relic-key", "NRAK-", r"[A-Z0-9]{27}", check=_is_varied)
_shape("sentry-token", "sntrys_eyJ", r"[A-Za-z0-9+/_=\-]{40,512}")
_shape("sentry-token", "sntryu_", HEX + "{64}", check=_is_varied)
_shape("postman-key", "PMAK-", HEX + r"{24}-[0-9a-f]{34}")
_shape("linear-key", "lin_api_ lin_oauth_", ALNUM + "{32,64}", check=_is_mixed)
_shape("notion-token", "ntn_", ALNUM + "{40,60}", check=_is_mixed, loose=True)
_shape("notion-token", "secret_", ALNUM + r"{43}(?=secret_|[^A-Za-z0-9]|\Z)", check=_is_mixed, loose=True)
_shape("figma-token", "figd_", URL64 + "{40,64}", check=_is_mixed, loose=True)
_shape("tailscale-key", "tskey-", r"[a-z]{2,10}-[A-Za-z0-9]{8,24}(?:-[A-Za-z0-9]{16,40})?", check=_is_mixed)
# Keys in blocks. A block that was cut off is taken as far as it looks like Base64.
_shape(
    "private-key-pem",
    "-----BEGIN␣ ----␣BEGIN␣",
    r"(?:[A-Z0-9]{1,16} ){0,4}PRIVATE KEY(?: BLOCK)? ?-{4,5}",
    guard=r"[A-Z0-9 ]{0,64}PRIVATE KEY",
    whole=False,
    settle=_end_of_pem,
)
_shape("putty-private-key", "Private-Lines:", r"[ \t]{0,4}\d{1,4}", guard="", whole=False, settle=_end_of_putty)
# URLs.
_shape(
    "url-password",
    "://",
    r"[^\s/?#\"'<>@:]{0,128}:(?P<value>[^\s/?#\"'<>\\]{1,256})@(?!sha(?:256|512):)[\w\[$.{-]",
    check=_is_password,
    guard=r"[^\s/?#\"'<>@:]{0,128}:",
    whole=False,
)


_PIVOTS: Final = "_~=.:-"
"""Characters that are rare in text: where a literal has one, the search stops there and looks back."""


def _pivot(literal: str) -> int:
    return next((literal.rfind(pivot) for pivot in _PIVOTS if pivot in literal), 0)


def _spot() -> tuple[re.Pattern[str], list[tuple[_Shape, int]]]:
    """Return one expression of all literals, which leaves most positions at once, as they hold no pivot.

    And what each of its groups, all empty, stands for: a shape, and how far before the pivot its literal begins.
    """
    branches: dict[str, dict[str, list[str]]] = {}
    for literal in sorted(_SHAPES, key=len, reverse=True):
        at = _pivot(literal)
        ahead = re.escape(literal[at + 1 :]) + _GUARDS[literal]
        branches.setdefault(literal[at], {}).setdefault(ahead, []).append(literal)
    meanings: list[tuple[_Shape, int]] = []
    choices: list[str] = []
    for pivot, by_ahead in branches.items():
        parts: list[str] = []
        for ahead, literals in by_ahead.items():
            behind = "|".join(f"(?<={re.escape(literal[: _pivot(literal) + 1])})()" for literal in literals)
            meanings += [(_SHAPES[literal], _pivot(literal)) for literal in literals]
            parts.append(f"(?={ahead})(?:{behind})")
        choices.append(f"{re.escape(pivot)}(?:{'|'.join(parts)})")
    return re.compile("|".join(choices)), meanings


_SPOT, _MEANINGS = _spot()


# --- tokens with dots ----------------------------------------------------------------------------------------------

_DOTTED: Final = re.compile(r"(?<![A-Za-z0-9_\-])[A-Za-z0-9_\-]{2,}+(?:\.[A-Za-z0-9_\-]*+)++")
_JSON_BEGINNINGS: Final = ("eyJ", "eyA", "ewo", "ew0", "ewk")
"""Base64 of a brace and what may follow it: a quote, a space, a line break, a tab."""
HEADER_CHARS_MAX: Final = 4096
HEADERS_TRIED_MAX: Final = 4
SIGNATURE_CHARS_MIN: Final = 42


def _may_be_dotted(text: str) -> bool:
    return "eyJ" in text or "eyA" in text or "ewo" in text or "ew0" in text or "ewk" in text


def _dotted_tokens(text: str) -> list[_Span]:
    """JWTs, signed or encrypted: a header that is JSON with an `alg`, and at least one part more."""
    spans = _jwts(text)
    if _BREAKS.search(text):
        # A token that is complete in its line does not go on in the next.
        complete = {span.start for span in spans if span.end - text.rfind(".", 0, span.end) > SIGNATURE_CHARS_MIN}
        spans += [span for span in _wrapped_jwts(text) if span.start not in complete]
    return spans


def _jwts(text: str) -> list[_Span]:
    spans: list[_Span] = []
    for run in _DOTTED.finditer(text):
        at = run.start()
        parts = run[0].split(".")
        for i, part in enumerate(parts[:-1]):
            begin = _header_in(part) if len(parts[i + 1]) >= 2 else None
            if begin is not None:
                spans.append(_Span(at + begin, run.end(), "jwt"))
                break
            at += len(part) + 1
    return spans


def _header_in(part: str) -> int | None:
    """Return where a JWT's header begins that ends with `part`."""
    places = _JSON_BEGINNING.finditer(part, max(0, len(part) - HEADER_CHARS_MAX))
    for place in (found.start() for found in islice(places, HEADERS_TRIED_MAX)):
        try:
            header = json.loads(_decoded(part[place:]) or b"")
        except (ValueError, RecursionError):
            continue
        if isinstance(header, dict) and isinstance(header.get("alg"), str):
            return place
    return None


_JSON_BEGINNING: Final = re.compile("|".join(_JSON_BEGINNINGS))
_WRAPPED_RUN: Final = re.compile(rf"(?<![A-Za-z0-9_.\-])(?:[A-Za-z0-9_.\-]{{12,}}+{_BREAK})++(?:[A-Za-z0-9_.\-]++)?")


def _wrapped_jwts(text: str) -> list[_Span]:
    """A JWT over several lines: all as long as the first one, but for the last."""
    spans: list[_Span] = []
    for run in _WRAPPED_RUN.finditer(text):
        lines = _BREAKS.split(run[0])
        gaps = [(gap.start(), gap.end()) for gap in _BREAKS.finditer(run[0])]
        at = 0
        while at < len(lines):
            last = at + 1
            while last < len(lines) - 1 and len(lines[last]) >= len(lines[at]):
                last += 1
            offset = gaps[at - 1][1] if at else 0
            inside = [(start - offset, end - offset) for start, end in gaps[at:last]]
            for span in _jwts("".join(lines[at : last + 1])) if _may_be_dotted(lines[at]) else ():
                start, end = _unwrapped(span.start, inside), _unwrapped(span.end - 1, inside) + 1
                spans.append(_Span(run.start() + offset + start, run.start() + offset + end, span.rule))
            at = last
    return spans


def _unwrapped(at: int, gaps: list[tuple[int, int]]) -> int:
    """Return the place in the text of what stands at `at` when the gaps are gone."""
    for start, end in gaps:
        if start > at:
            break
        at += end - start
    return at


# --- context -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Context:
    """What the place of a string says about it."""

    name: str = ""
    """A name that promises a secret."""
    opaque: str = ""
    """`sealed` or `secret_ref`: a string of that form is none."""


_NO_CONTEXT: Final = _Context()
_KEY: Final = (
    r"(?:api|access|private|secret|signing|encryption|master|account|auth|storage|service|deploy|shared|webhook|license"
    r"|app|application|subscription|client)[ _.\-]?key"
)
_NAMES: Final = rf"(?:pass(?:word|wd|phrase|code|wort)?|pwd|secret|token|credential|{_KEY}|auth)"
_KEY_HINT: Final = re.compile(_KEY)
_AUTH_HINT: Final = re.compile(r"auth(?!or(?!iz)|ent)")
_SEPARATOR: Final = r"(?:\\{0,16}[\"'`])?\]?\s{0,8}(?:=>|:=|={1,3}|:|>)\s{0,8}(?:\\{0,16}[\"'`])?"
_VALUE: Final = r"[^\s\x00-\x1f\"'`<>,;&|=:\\]{8,4096}={0,2}"
_NAMED: Final = rf"(?P<name>{_NAMES}(?P<suffix>[a-z0-9_.\-]{{0,32}}+))"
_ASSIGNMENT: Final = re.compile(
    rf"{_NAMED}(?:(?P<gap>[ \t]{{1,4}})(?P<flagged>{_VALUE})|{_SEPARATOR}(?P<value>{_VALUE}))"
)
_NAME: Final = re.compile(_NAMED + "$")
_BEFORE_NAME: Final = re.compile(r"[a-z0-9_.\-]{0,40}$")
_ESCAPED: Final = re.compile(r"(?<=\\)[abefnrtv]|(?<=[\[;])[0-9]{1,3}m|(?<=%)[0-9a-f]{2}")
_REST: Final = re.compile(r"[^\s\x00-\x1f\"'`<>,;&\\]*")
_WHOLE_VALUE: Final = re.compile(r"[^\s\"'`<>]{8,4096}")
_NO_SECRET: Final = re.compile(
    r"[_.\-]?(?:refs?|names?|files?|path|dir|urls?|uri|ids?|type|kind|count|ttl|expir(?:y|es|ation)(?:_?(?:in|at))?|length|size"
    r"|hash|digest|sha\d*|sum|version|prefix|policy|manager|store|engine|mount|algorithm|alg|scheme|field|label|arn"
    r"|provider|namespace|seconds|ms|used|usage|limit|budget|status|state|mode|method|endpoint|issuer|audience|or|ors"
    r"|ority|entication|orization|orized|enticated)$"
)
_NO_TOKEN: Final = re.compile(
    r"(?:lease|page|next|prev|previous|continuation|continue|cursor|sync|fence|fencing|idempotency|resume|cancel"
    r"|cancellation|csrf|xsrf|request|dedupe?|cache|etag|correlation|max|min|total|prompt|completion|input|output|stop"
    r"|eos|bos|pad|special|num|design|change|watch)[_.\-]?tokens?$"
)
_MARKER: Final = re.compile(r"\[redacted:[a-z0-9-]+\]")
_PLACEHOLDER: Final = re.compile(
    _MARKER.pattern + r"|\$\{?[A-Za-z_]\w*\}?|%[A-Za-z_]\w*%|\{+[^}]*\}+|<[^>]*>|[*.•x#X_-]+|\$\(.*|\$\{.*"
    r"|\(?(?:redacted|hidden|masked|filtered|null|none|undefined|true|false)\)?",
    re.IGNORECASE,
)
_REFERENCE: Final = re.compile(r"(?:vault|env|file|exec)://[^\s\"'<>]{1,1024}")
_SEALED: Final = re.compile(r"[A-Za-z0-9+/_\-]{64,}={0,2}")
_UUID: Final = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}", re.IGNORECASE)
_NO_VALUE: Final = re.compile(
    r"\d{1,19}\.[0-9a-f]{32}"  # a lease token
    r"|[\w.\-]{1,64}~[\w.\-]+"  # a job's id with its pool
    r"|sha(?:1|256|384|512)-.*"  # the hash of a package
    r"|~?\.{0,2}/(?:[\w.@\-]+/)+[\w.@\-]*"  # a path
    r"|.*(?:\$\{|\$\(|\{\{|%\{|\(\)).*"  # a template or a call
    r"|\$(?:2[aby]|5|6|argon2\w*)\$.*"  # the hash of a password
)
_ULID: Final = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")


def _has_hint(lowered: str) -> bool:
    """Whether a name that promises a secret may be here. A lease token is no secret, and in every beat of an agent."""
    if "pass" in lowered or "pwd" in lowered or "secret" in lowered:
        return True
    if "bearer" in lowered or "basic" in lowered or "credential" in lowered:
        return True
    if "token" in lowered and lowered.count("token") > lowered.count("lease_token"):
        return True
    return ("key" in lowered and _KEY_HINT.search(lowered) is not None) or (
        "auth" in lowered and _AUTH_HINT.search(lowered) is not None
    )


def _assignments(text: str, lowered: str) -> list[_Span]:
    spans: list[_Span] = []
    at = 0
    while match := _ASSIGNMENT.search(lowered, at):
        at = match.end()
        begin = _BEFORE_NAME.search(lowered, max(0, match.start() - 40), match.start())
        lead = begin[0] if begin else ""
        if begin and (escape := _ESCAPED.match(lowered, begin.start())):
            lead = lead[escape.end() - escape.start() :]
        # A value after a mere space counts on a command line alone, so what looked like one is read again.
        group = "flagged" if match["gap"] else "value"
        if match["gap"] and not lead.startswith("-"):
            at = match.end("name")
            continue
        start, end = match.span(group)
        rule = _rule_for(lead, match, text[start:end])
        if rule:
            rest = _REST.match(text, end)
            end = at = rest.end() if rest else end
            if not _MARKER.fullmatch(text, start, end):
                spans.append(_Span(start, end, rule, 1))
    return spans


def _promised(name: str, text: str) -> str | None:
    """Return the rule by which `text`, all of it, is the secret that `name` promises."""
    match = _NAME.search(name)
    if match is None or not _WHOLE_VALUE.fullmatch(text):
        return None
    return _rule_for(name[: match.start()], match, text)


def _rule_for(lead: str, match: re.Match[str], value: str) -> str | None:
    """Return the rule by which `value` is a secret under the name that `match` found, with `lead` before it."""
    bare = value.rstrip(")]}.")
    if len(set(value)) < 5 or _PLACEHOLDER.fullmatch(value) or _PLACEHOLDER.fullmatch(bare):
        return None
    full = lead + match["name"]
    for rule, name, form in _IN_CONTEXT:
        if name.search(full) and form.match(bare):
            return rule
    if full.endswith("auth"):
        return "basic-auth" if _is_basic(value) else None
    if _NO_SECRET.search(match["suffix"]) or _NO_TOKEN.search(full) or _NO_VALUE.fullmatch(bare):
        return None
    weak = "token" in full and not any(word in full for word in ("pass", "pwd", "secret", "key"))
    if _UUID.fullmatch(bare):
        return "assigned-secret" if "pass" in full or "pwd" in full or "client" in full else None
    if weak and _ULID.fullmatch(bare):
        return None
    if _is_random(value, digits_min=2) or _is_wordless(value):
        return "assigned-secret"
    if ("pass" in full or "pwd" in full) and _is_chosen(bare):
        return "assigned-secret"
    return None


_IN_CONTEXT: Final = tuple(
    (rule, re.compile(name), re.compile(rf"(?:{form})(?![A-Za-z0-9+/=_-])"))
    for rule, name, form in (
        ("aws-secret-access-key", r"secret[_.\- ]?access[_.\- ]?key|aws.*secret", r"[A-Za-z0-9/+]{40}"),
        ("datadog-key", r"(?:^|[_.\-])dd[_.\-]|datadog", r"[0-9a-f]{32}|[0-9a-f]{40}"),
        ("twilio-auth-token", r"twilio", r"[0-9a-f]{32}"),
        ("heroku-api-key", r"heroku", _UUID.pattern),
        ("npmrc-auth", r"(?:^|[:/_])_(?:authtoken|password|auth)$", r"[^$\s{][^\s]{7,}"),
        ("kubeconfig-client-key", r"client-key-data$", r"[A-Za-z0-9+/]{64,}={0,2}"),
    )
)
_BEARER: Final = re.compile(
    r"(?:authorization(?:\\{0,3}[\"'`])?\s{0,4}[:=]\s{0,4}(?:\\{0,3}[\"'`])?(?P<named>bearer|basic|token|apikey|bot)"
    r"|(?P<scheme>bearer|basic))(?:\s{1,4}|%20|\+)(?P<value>[a-z0-9_.~+/\-]{8,4096}={0,2})"
)


def _authorizations(text: str, lowered: str) -> list[_Span]:
    spans: list[_Span] = []
    if "bearer" not in lowered and "basic" not in lowered and "authorization" not in lowered:
        return spans
    for match in _BEARER.finditer(lowered):
        value = text[match.start("value") : match.end("value")]
        if "basic" in (match["scheme"], match["named"]):
            rule = "basic-auth" if _is_basic(value) else None
        else:
            known = _NO_VALUE.fullmatch(value) or len(set(value)) < 5
            rule = "bearer-token" if not known and (_is_random(value) or _is_wordless(value)) else None
        if rule:
            spans.append(_Span(match.start("value"), match.end("value"), rule, 2))
    return spans


_NETRC: Final = re.compile(
    r"(?:machine\s{1,8}[^\s]{1,255}|default)\s{1,8}login\s{1,8}[^\s]{1,255}\s{1,8}password\s{1,8}(?P<value>[^\s\x00-\x1f\"'`<\\]{4,256})"
)


def _netrc(text: str, lowered: str) -> list[_Span]:
    if "login" not in lowered:
        return []
    return [
        _Span(match.start("value"), match.end("value"), "netrc-password", 1)
        for match in _NETRC.finditer(lowered)
        if _is_password(text[match.start("value") : match.end("value")])
    ]


def _is_basic(value: str) -> bool:
    """User and password in Base64, as Basic authentication writes them."""
    decoded = _decoded(value) or b""
    return re.fullmatch(rb"[\x21-\x7e]{0,128}:[\x20-\x7e]{1,256}", decoded) is not None


# --- randomness, asked only where a name or a prefix promised a secret ------------------------------------------------

_ALNUMS: Final = re.compile(r"[A-Za-z0-9+]+")
_WORDS: Final = re.compile(r"[A-Z]?[a-z]{3,}|[A-Z]{4,}")
_EDGE: Final = re.compile(r"[A-Za-z](?=[0-9])|[0-9](?=[A-Za-z])")
_DIGIT: Final = re.compile(r"[0-9]")
_TIME: Final = re.compile(r"\d+[Tt]\d+[Zz]?")


def _is_random(value: str, digits_min: int = 1) -> bool:
    """Some part of at least twelve characters mixes letters and digits as names, versions and dates do not."""
    value = value[:512]
    for part in _ALNUMS.findall(value):
        if len(part) < 12 or len(set(part)) < 6 or len(_DIGIT.findall(part)) < digits_min:
            continue
        if len(_EDGE.findall(part)) >= 3 and _wordiness(part) <= 0.7 and not _TIME.fullmatch(part):
            return True
    # With dashes in it, only what also mixes capital and small letters: `prod-eu1-k8s-v2-db3` is a name.
    whole = re.sub(r"[_\-]", "", value)
    mixed = len(whole) >= 20 and whole.isalnum() and whole not in (whole.lower(), whole.upper())
    return mixed and len(_EDGE.findall(whole)) >= 4 and _wordiness(whole) <= 0.4


def _is_wordless(value: str) -> bool:
    """Some part mixes capital and small letters as no writer does."""
    return any(
        len(part) >= 16 and part not in (part.lower(), part.upper()) and _wordiness(part) <= 0.5
        for part in _ALNUMS.findall(value[:512])
    )


_CALL: Final = re.compile(r"[A-Za-z_.]\w*\(")


def _is_chosen(value: str) -> bool:
    """What people choose for a password when rules ask for it: three of small, capital, digit, sign."""
    if "/" in value or _CALL.match(value):
        return False
    kinds = (r"[a-z]", r"[A-Z]", r"[0-9]", r"[!@#%^&*+?~$]")
    return len(value) >= 8 and sum(re.search(kind, value) is not None for kind in kinds) >= 3


def _wordiness(part: str) -> float:
    return sum(map(len, _WORDS.findall(part))) / len(part)


# --- places in JSON ------------------------------------------------------------------------------------------------


def _strings(value: Any) -> list[str]:
    found: list[str] = []
    todo = [value]
    for node in todo:
        if isinstance(node, str):
            found.append(node)
        elif isinstance(node, dict):
            found += map(str, node)
            todo += node.values()
        elif isinstance(node, (list, tuple)):
            todo += node
    return found


_Place = tuple["_Place", "str | int"] | None
"""A chain from a string up to the top of the document; names as they are, so never shown."""


def _is_payload(place: _Place) -> bool:
    """Whether a place is that of a job's payload, in a body that holds one job, or many."""
    segments: list[str | int] = []
    while place is not None and len(segments) < 4:
        place, segment = place
        segments.append(segment)
    if place is not None or not segments or segments.pop(0) != "payload":
        return False
    return segments in ([], ["job"]) or (len(segments) == 2 and isinstance(segments[0], int) and segments[1] == "jobs")


_SIGNED: Final = re.compile(r"([A-Za-z0-9_\-]{16,512})\.([A-Za-z0-9_\-]+)\.[A-Za-z0-9_\-]{86}")


def _signed_job(payload: dict[str, Any]) -> dict[str, Any] | None:
    """Return what is signed in `{"signed": …}` when it is a job that `hybridq sign` made, which opens no door.

    By its header, which says so and nothing else: any other JWS may be somebody's token, and is a secret as it stands.
    """
    form = _SIGNED.fullmatch(payload["signed"]) if isinstance(payload["signed"], str) else None
    if form is None:
        return None
    try:
        header, job = (json.loads(_decoded(part) or b"") for part in form.groups())
    except (ValueError, RecursionError):
        return None
    if not isinstance(header, dict) or header.keys() != {"alg", "kid", "typ"}:
        return None
    if (header["alg"], header["typ"]) != ("Ed25519", "hybridq-job") or find(str(header["kid"])) is not None:
        return None
    return job if isinstance(job, dict) and "steps" in job else None


def _written(pointer: str, place: _Place) -> str:
    """Return the JSON pointer of a place, names that hold a secret redacted."""
    segments: list[str] = []
    while place is not None:
        place, name = place
        segments.append(redact(str(name))[0].replace("~", "~0").replace("/", "~1"))
    return pointer + "".join(f"/{segment}" for segment in reversed(segments))


def _context_of(name: str, parent: dict[Any, Any], outer: _Context) -> _Context:
    """Return what a member's name, or the `name` that stands beside its `value`, says about it."""
    if name in ("sealed", "secret_ref"):
        return _Context(opaque=name)
    if name == "value":
        named = parent.get("name", parent.get("key"))
        name = named if isinstance(named, str) else name
    return _promise(name) or (outer if name == "value" else _NO_CONTEXT)


def _promise(name: str) -> _Context | None:
    if len(name) > 128 or not _has_hint(lowered := _lowered(name)) or not _NAME.search(lowered):
        return None
    return _Context(name=lowered)


def _beside(entries: list[Any] | tuple[Any, ...], i: int, context: _Context) -> _Context:
    """Return what a list's own context, or the command line flag before an entry, says about it."""
    flag = entries[i - 1] if i else None
    if isinstance(flag, str) and flag.startswith("-"):
        return _promise(flag.lstrip("-")) or context
    return context


def _unlike(name: str, fresh: dict[Any, Any], original: dict[Any, Any], numbers: dict[str, int]) -> str:
    unlike = name
    while unlike in fresh or unlike in original:
        numbers[name] = numbers.get(name, 1) + 1
        unlike = f"{name}-{numbers[name]}"
    return unlike


def _is_opaque(text: str, context: _Context) -> bool:
    return (_SEALED if context.opaque == "sealed" else _REFERENCE).fullmatch(text) is not None
