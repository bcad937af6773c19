"""Names that can be keys, keys that share a slot, ids that sort by time."""

from __future__ import annotations

import string
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot

from hybridq.errors import InvalidArgument
from hybridq.keys import (
    FAMILIES,
    bell_channel,
    catalogue_root,
    fleet_root,
    new_id,
    new_job_id,
    queue_root,
    short_key,
    validate_name,
    validate_namespace,
)

ALPHABET = string.ascii_letters + string.digits + "._-"


@pytest.mark.parametrize("name", ["a", "A9", "build.web_1-x", "0", "x" * 64])
def test_names_inside_the_rule_pass_unchanged(name: str) -> None:
    """Nothing is normalised: what was given is what is stored."""
    assert name == validate_name("queue", name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "x" * 65,
        ".a",
        "-a",
        "_a",
        "a b",
        "a{b",
        "a}b",
        "a:b",
        "a*b",
        "a\nb",
        "a\x00b",
        "ä",
        "á",
        "a/b",
        "a~b",
        "a\n",
        b"a",
        None,
        1,
    ],
    ids=repr,
)
def test_names_outside_the_rule_are_refused(name: object) -> None:
    """Braces would move the hash tag, colons and stars the key, control bytes the log."""
    with pytest.raises(InvalidArgument, match="1 to 64 characters"):
        validate_name("queue", name)  # type: ignore[arg-type]


@pytest.mark.parametrize("root", [lambda name: queue_root(name, "q"), catalogue_root, fleet_root, validate_namespace])
def test_the_namespace_of_the_server_s_own_records_is_refused(root: Callable[[str], str]) -> None:
    """`hq:{sys/auth}` belongs to all namespaces; a namespace of that name would stand among its keys."""
    with pytest.raises(InvalidArgument, match=r"namespace: .*sys.* another name"):
        root("sys")
    for name in ("system", "Sys", "sys-1"):
        assert name in root(name)


@given(st.text(alphabet=ALPHABET, min_size=1, max_size=64), st.text(alphabet=ALPHABET, min_size=1, max_size=64))
def test_all_keys_of_a_queue_share_one_slot(namespace: str, queue: str) -> None:
    """For every namespace and queue there can be."""
    if not (namespace[0].isalnum() and queue[0].isalnum()) or namespace == "sys":
        return
    root = queue_root(namespace, queue)
    slots = {key_slot(f"{root}{suffix}x".encode()) for suffix, _ in FAMILIES.values()}

    assert len(slots) == 1
    assert bell_channel(root).startswith(root)


def test_two_queues_never_share_a_root() -> None:
    """Not even where the parts, put together, read alike."""
    assert queue_root("a", "b.c") != queue_root("a.b", "c")
    assert "hq:{team/q/builds}" == queue_root("team", "builds")


def test_ids_sort_by_time_and_are_version_7() -> None:
    """RFC 9562: the version digit is 7, the variant 8 to b."""
    ids = [new_id() for _ in range(200)]

    assert len(set(ids)) == 200
    assert [one[:12] for one in ids] == sorted(one[:12] for one in ids)
    assert {"7"} == {one[12] for one in ids}
    assert {one[16] for one in ids} <= set("89ab")
    assert validate_name("job_id", new_job_id()).startswith("job-")


@pytest.mark.parametrize("key", ["k", "deploy:web", "x" * 64, "ä" * 32])
def test_a_short_key_stays_readable(key: str) -> None:
    """Up to 64 bytes it is stored as it is."""
    assert key == short_key(key)


@pytest.mark.parametrize("key", ["x" * 65, "ä" * 33, "y" * 256])
def test_a_long_key_becomes_a_digest_that_stays_small(key: str) -> None:
    """64 bytes are what keeps a record in its compact form; two keys do not meet."""
    assert len(short_key(key).encode()) <= 64
    assert short_key(key) != short_key(key + "z")
