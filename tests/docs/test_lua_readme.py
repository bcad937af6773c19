"""What lua/README.md says of the keys is true, and every line it tells people to type answers on a live queue."""

from __future__ import annotations

import re
import shlex
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis as redis_py

from hybridq import Queue
from hybridq.keys import CATALOGUE_FAMILIES, FAMILIES, FLEET_FAMILIES
from hybridq.ops import leases
from hybridq.scripts import verbs
from tests.servers import ServerProcess

LUA = Path(__file__).parents[2] / "lua"
TEXT = (LUA / "README.md").read_text(encoding="utf-8")
QUEUE = "builds"


def _commands() -> list[str]:
    return [line for line in TEXT.splitlines() if line.startswith("redis-cli ")]


@pytest.fixture
def busy_queue(redis_url: str) -> Iterator[Queue]:
    """A queue with something in every place the page speaks of."""
    with Queue(QUEUE, redis=redis_url, namespace="default", agent="agent-1") as queue:
        queue.configure(tombstone_s=60)
        for n in range(3):
            queue.enqueue("build", {"n": n}, job_id=f"done-{n}")
            [lease] = queue.claim(start=True)
            queue.append_log(lease, 0, f"done {n}\n")
            queue.complete(lease, {"ok": n})
        queue.configure(retention_count=1)
        queue.enqueue("build", {}, job_id="dead-1", max_attempts=1)
        queue.fail(queue.claim(start=True)[0], "broken")
        queue.enqueue("deploy", {}, job_id="job-1", unique="deploy:web")
        queue.fail(queue.claim(start=True)[0], "once more", delay_s=0)
        queue.append_log(queue.claim(start=True)[0], 0, "deploying\n")
        queue.enqueue("build", {}, job_id="later-1", delay_s=500)
        queue.enqueue("build", {}, job_id="waiting-1")
        queue.enqueue("build", {}, job_id="urgent-1", priority="CRITICAL")
        queue.pause("maintenance", by="ann")
        queue.upkeep()
        yield queue


def test_every_command_of_the_page_answers(busy_queue: Queue, server: ServerProcess, redis: redis_py.Redis) -> None:
    """Each line is sent as it stands; an answer that is empty would be a question the keys no longer answer."""
    commands = _commands()
    assert len(commands) >= 18
    now = str(int(time.time() * 1000) + 60_000)

    for line in commands:
        words = [now if word == "$NOW" else word for word in shlex.split(line)[1:]]
        if words[0] == "SUBSCRIBE":
            continue
        answer = redis.execute_command(*words)

        assert answer not in (None, [], b"", 0, {}), line
        if words[0] == "HMGET":
            assert any(value is not None for value in answer), line


def test_the_bell_rings_where_the_page_says(busy_queue: Queue, redis: redis_py.Redis) -> None:
    """The channel to subscribe to is the one that enqueue rings."""
    [line] = [line for line in _commands() if "SUBSCRIBE" in line]
    with redis.pubsub() as bell:
        bell.subscribe(shlex.split(line)[2])
        assert bell.get_message(timeout=5) is not None

        busy_queue.enqueue("build", {})

        message = bell.get_message(timeout=5)
        assert message is not None and message["data"] == b"any 1"


def test_redis_cli_itself_takes_the_lines(busy_queue: Queue, server: ServerProcess) -> None:
    """Quoting and all, one line through a shell and the real redis-cli, where there is one."""
    line = next(line for line in _commands() if "ZCARD" in line)
    found = subprocess.run(["sh", "-c", "command -v redis-cli"], capture_output=True, check=False)
    if found.returncode:
        pytest.skip("no redis-cli on the path")
    socket = redis_py.connection.parse_url(server.url)["path"]

    done = subprocess.run(
        ["sh", "-c", line.replace("redis-cli", f"redis-cli -s {socket}")], capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "2"


def test_the_key_table_names_every_family_and_no_other() -> None:
    """A family that is not on the page is a key nobody can find; one that is only there, a lie."""
    rows = re.findall(r"^\| `…:([a-z_]+)[^`]*` \| (\w+) \|", TEXT, flags=re.MULTILINE)

    assert {(name, kind) for name, (_, kind) in FAMILIES.items()} == set(rows)


@pytest.mark.parametrize(("root", "families"), [("queues", CATALOGUE_FAMILIES), ("fleet", FLEET_FAMILIES)])
def test_the_tables_of_other_roots_name_every_family_and_no_other(
    root: str, families: dict[str, tuple[str, str]]
) -> None:
    """The catalogue and the fleet have a section each, which begins with their root."""
    section = TEXT[TEXT.index(f"The root is `hq:{{<namespace>/sys/{root}}}`") :].partition("\n## ")[0]
    rows = re.findall(r"^\| `:([a-z_]+)[^`]*` \| (\w+) \|", section, flags=re.MULTILINE)

    assert {(name, kind) for name, (_, kind) in families.items()} == set(rows)


@pytest.mark.parametrize("folder", ["catalogue", "fleet"])
def test_the_script_table_of_other_roots_names_every_file(folder: str) -> None:
    assert set(verbs(folder)) <= set(re.findall(r"`([a-z]+/[a-z]+)`", TEXT))


def test_every_key_of_a_busy_queue_is_on_the_page(busy_queue: Queue, redis: redis_py.Redis) -> None:
    """Every key has the root, a family of the table, and that family's type."""
    for key in redis.scan_iter("hq:{*/q/*", count=1000):
        name, kind = key.decode(), redis.type(key).decode()
        family = name.removeprefix(f"{busy_queue.root}:").partition(":")[0]

        assert name.startswith(f"{busy_queue.root}:")
        assert FAMILIES[family][1] == kind


def test_the_field_table_names_every_field_of_a_record(busy_queue: Queue, redis: redis_py.Redis) -> None:
    """Fields that scripts write into `job:<id>` are all explained."""
    section = TEXT[TEXT.index("### Fields of `job:<id>`") : TEXT.index("A line of `result`")]
    explained = set(re.findall(r"`([a-z_]+)`", section))
    busy_queue.cancel("job-1")
    seen = {field.decode() for key in redis.scan_iter("*:job:*") for field in redis.hkeys(key)}

    assert seen - explained == set()
    assert len(seen) > 20


def test_the_script_tables_name_every_file() -> None:
    """Every verb and every part of lib/ has its line."""
    rows = {
        name
        for row in re.findall(r"^\| ((?:`\w+` ?)+)\|", TEXT, flags=re.MULTILINE)
        for name in re.findall(r"\w+", row)
    }
    files = {*verbs(), *(path.stem for path in (LUA / "lib").glob("*.lua"))}

    assert files - rows == set()


def test_the_places_that_are_said_to_be_stored_once(busy_queue: Queue, redis: redis_py.Redis) -> None:
    """The end of a lease is its score in `leased`, and in the holder's own set."""
    job = busy_queue.job("job-1")
    score = redis.zscore(f"{busy_queue.root}:leased", "job-1")

    assert job.lease_expires_at is not None and score is not None
    assert job.lease_expires_at.timestamp() * 1000 == pytest.approx(score)
    assert redis.zscore(f"{busy_queue.root}:held:agent-1", "job-1") == score
    assert leases.LANES_ANY == job.lane
