"""A job prints a secret in every form that programs print secrets in; nobody but the agent's memory sees it.

Looked through are the log as the API gives it out, everything Redis holds and what it has written to disk, the API's
own log, what the agent logs, and the folders in which it keeps its state, its spool and its workspaces.
"""

from __future__ import annotations

import base64
import html
import json
import re
import shlex
import urllib.parse
from collections.abc import Callable, Iterator
from pathlib import Path

import redis as redis_py

from tests.agent.e2e.agents import AgentProcess
from tests.agent.e2e.doings import payload, python, wait_for
from tests.agent.e2e.house import House
from tests.servers import wait_until

SECRET = r"""Tr0ub4dor&3/"q'$<x>=~?>Zq~7\vK9~~?m {P}w%hU~"""
NO_SECRET = r"""Wm5!pa%/'z"{e}>j<~>~&Xy\H7 >?>c|L$n+D>~?"""
"""Of the same kind, in a job that nobody told of it."""
WINDOW, CHARS = 12, 5
"""So much of an encoded secret in a row is a leak, that of so many of its characters at least."""
Start = Callable[..., AgentProcess]


def encodings(secret: str) -> dict[str, str]:
    """Return what a job prints of a secret, by the name of the form."""
    raw = secret.encode()
    half = len(secret) // 2

    def b64(data: bytes, *, url: bool = False) -> str:
        return (base64.urlsafe_b64encode if url else base64.b64encode)(data).decode()

    def wrapped(text: str, width: int, end: str = "\n") -> str:
        return end.join(text[at : at + width] for at in range(0, len(text), width))

    def each(form: str) -> str:
        return "".join(form.format(ord(char)) for char in secret)

    return {
        "as it is": secret,
        "base64": b64(raw),
        "base64 without padding": b64(raw).rstrip("="),
        "base64url": b64(raw, url=True),
        "base64url without padding": b64(raw, url=True).rstrip("="),
        "base64, one byte before": b64(b"k" + raw),
        "base64, two bytes before": b64(b"k:" + raw),
        "base64, three bytes before": b64(b"kk:" + raw),
        "base64, bytes around": b64(b"u:" + raw + b"@h"),
        "base64url, one byte before": b64(b"k" + raw, url=True),
        "base64url, two bytes before": b64(b"k:" + raw, url=True),
        "base64 with a line end inside": b64(raw + b"\n"),
        "Authorization: Basic": "Authorization: Basic " + b64(b"deploy:" + raw),
        "base64 in lines of 16": wrapped(b64(raw), 16),
        "base64 in lines of 20, CRLF": wrapped(b64(b"k" + raw), 20, "\r\n"),
        "percent, where needed": urllib.parse.quote(secret),
        "percent, also slashes": urllib.parse.quote(secret, safe=""),
        "percent, plus for blanks": urllib.parse.quote_plus(secret),
        "percent, lower case": re.sub(r"%..", lambda found: found[0].lower(), urllib.parse.quote(secret, safe="")),
        "percent, every byte": each("%{:02X}"),
        "percent, every byte, lower case": each("%{:02x}"),
        "in a URL": f"https://user:{urllib.parse.quote(secret, safe='')}@example.com/",
        "JSON": json.dumps(secret),
        "JSON in JSON": json.dumps(json.dumps({"k": secret})),
        "JSON with escaped slashes": json.dumps(secret).replace("/", "\\/"),
        "JSON, every character": '"' + each("\\u{:04x}") + '"',
        "JSON, every character, upper case": '"' + each("\\u{:04X}") + '"',
        "hex": raw.hex(),
        "hex, upper case": raw.hex().upper(),
        "HTML": html.escape(secret),
        "HTML, quotes left": html.escape(secret, quote=False),
        "HTML, decimal": each("&#{};"),
        "HTML, hex": each("&#x{:x};"),
        "HTML, hex, upper case": each("&#x{:X};"),
        "XML": html.escape(secret).replace("&#x27;", "&apos;"),
        "shell, single quotes": shlex.quote(secret),
        "shell, double quotes": '"' + re.sub(r'([\\"$`])', r"\\\1", secret) + '"',
        "shell, ANSI quotes": "$'" + secret.replace("\\", "\\\\").replace("'", "\\'") + "'",
        "shell, backslashes": re.sub(r"([^\w])", r"\\\1", secret),
        "split by a line end": secret[:half] + "\n" + secret[half:],
        "split by CRLF": secret[:half] + "\r\n" + secret[half:],
        "in lines of 8": wrapped(secret, 8),
        "with colours inside": secret[:half] + "\x1b[31m" + secret[half:] + "\x1b[0m",
        "as Python shows it": repr(secret),
        "in a command": f"curl -H 'X-Token: {secret}' --data {secret}",
    }


PRINTER = """\
import json, sys, time
for number, text in enumerate(json.load(open(sys.argv[1]))):
    sys.stdout.write(f"{number:02d}[[")
    # In two writes with a flush between: no piece of the log ends where a secret does.
    half = len(text) // 2
    sys.stdout.write(text[:half]); sys.stdout.flush()
    time.sleep(0.02 if number % 5 else 0.7)
    sys.stdout.write(text[half:] + f"]]{number:02d}\\n"); sys.stdout.flush()
print("all of it in one line: " + " ".join(json.load(open(sys.argv[1]))))
print("printed", flush=True)
"""


def windows(secret: str) -> dict[str, str]:
    """Return pieces of the secret's forms, by the form's name: what must be found nowhere.

    The ends of a form are left out: in base64 they belong to what stands beside the secret, and quotes are no secret.
    """
    known: dict[str, str] = {}
    for name, form in encodings(secret).items():
        core = re.sub(r"\x1b\[\d*m|[\r\n]", "", form)
        for beside in ("Authorization: Basic ZGVwbG95O", "https://user:", "@example.com/", "curl -H 'X-Token: "):
            core = core.replace(beside, "")
        core = core.split(" --data ")[0]
        width = max(WINDOW, CHARS * len(core) // len(secret))
        for at in range(3, len(core) - width - 6):
            known.setdefault(core[at : at + width], name)
    return known


def leaks(text: str, known: dict[str, str]) -> set[str]:
    """Return the names of the forms of which a piece is in the text, whatever lines it is broken into."""
    plain = re.sub(r"\x1b\[\d*m|[\r\n]|\\n|\\r|\\u001b\[\d*m", "", text)
    return {name for looked in (text, plain) for window, name in known.items() if window in looked}


def everything_redis_holds(house: House) -> Iterator[str]:
    with house.redis.client() as client:
        for key in client.scan_iter(count=1000):
            yield key.decode(errors="replace")
            yield repr_of(client, key)


def repr_of(client: redis_py.Redis, key: bytes) -> str:
    def text(value: object) -> str:
        if isinstance(value, bytes):
            return value.decode(errors="replace")
        if isinstance(value, dict):
            return " ".join(f"{text(name)} {text(item)}" for name, item in value.items())
        if isinstance(value, (list, tuple, set)):
            return " ".join(text(item) for item in value)
        return str(value)

    readers = {
        b"string": lambda: client.get(key),
        b"hash": lambda: client.hgetall(key),
        b"list": lambda: client.lrange(key, 0, -1),
        b"set": lambda: client.smembers(key),
        b"zset": lambda: client.zrange(key, 0, -1),
        b"stream": lambda: client.xrange(key),
        b"none": lambda: b"",
    }
    return text(readers[client.type(key)]())


def files_below(*folders: Path) -> Iterator[tuple[Path, str]]:
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file():
                yield path, path.read_bytes().decode(errors="replace")


def printing(room: Path, secret: str) -> str:
    """Return shell of a job that prints a secret in every form; none of them is in the job's payload."""
    (room / "forms").write_text(json.dumps(list(encodings(secret).values())))
    (room / "printer.py").write_text(PRINTER)
    return python(room / "printer.py", room / "forms")


def test_there_are_forty_encodings_and_each_can_be_found(house: House, agent: Start, room: Path) -> None:
    """What the other test looks for is there when the agent is not told that a value is a secret."""
    forms = encodings(NO_SECRET)
    assert len(forms) >= 40
    assert len(set(forms.values())) == len(forms)
    agent("a")
    job = house.client.enqueue("t", payload(printing(room, NO_SECRET)), pool=house.pool)
    assert house.wait_for_end(job.id).status == "COMPLETED"
    known = windows(NO_SECRET)
    log = house.log(job.id)
    found = leaks(log, known)
    # Forms that share all their pieces with an earlier one are found under its name.
    assert found == set(known.values())
    assert leaks(" ".join(everything_redis_holds(house)), known) == found


def test_no_secret_passes_in_any_of_forty_encodings(house: House, agent: Start, room: Path) -> None:
    holder = agent("a", allow_secrets="env://DEPLOY_*", env={"DEPLOY_KEY": SECRET})
    runs = (
        f'test "$KEY" = "$(cat \'{room / "value"}\')" && {printing(room, SECRET)} && {wait_for(room / "go")}',
        'echo "TOKEN=$KEY" >> $HYBRIDQ_OUTPUT; echo "last words: $KEY" >&2; exit 3',
    )
    (room / "value").write_text(SECRET)
    job = house.client.enqueue(
        "t", payload(*runs, env={"KEY": {"secret_ref": "env://DEPLOY_KEY"}}), pool=house.pool, max_attempts=1
    )
    common = windows(NO_SECRET)
    # What both have in common may be there: Redis has kept what the other test wrote.
    known = {window: name for window, name in windows(SECRET).items() if window not in common}
    wait_until(lambda: "printed" in house.log(job.id), 60, what="everything was printed")
    spooled = dict(files_below(holder.state, holder.work))
    assert any("step 1 of 2" in text for text in spooled.values()), "the spool is among them"
    assert {path: found for path, text in spooled.items() if (found := leaks(text, known))} == {}
    (room / "go").touch()
    ended = house.wait_for_end(job.id)
    assert (ended.status, ended.exit_code) == ("DEAD_LETTERED", 3), "the job had the secret, and used it"

    log = house.log(job.id)
    assert leaks(log, known) == set()
    forms = encodings(SECRET)
    for number in range(len(forms)):
        assert re.search(rf"{number:02d}\[\[.*\[redacted.*\]\]{number:02d}", log, re.S), log
    assert leaks(" ".join(everything_redis_holds(house)), known) == set()
    seen = dict(files_below(house.redis.folder, holder.state, holder.work))
    assert any(path.name.endswith(".aof") for path in seen)
    assert {path: found for path, text in seen.items() if (found := leaks(text, known))} == {}
    assert leaks(house.api.log, known) == set()
    assert leaks(holder.log, known) == set()
    assert leaks(json.dumps(house.ask("GET", f"/api/queue/jobs/{job.id}")), known) == set()
