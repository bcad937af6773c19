"""What lua/README.md says of the access records is true."""

from __future__ import annotations

import re
import shlex

from hybridq.keys import AUTH_FAMILIES
from hybridq.scripts import locate, verbs
from tests.access.harness import AccessRig
from tests.access.test_records import furnish

TEXT = (locate() / "README.md").read_text(encoding="utf-8")
SECTION = TEXT[TEXT.index("## The keys of the access records") : TEXT.index("## What to type")]


def test_the_key_table_names_every_family_with_its_type_and_no_other() -> None:
    rows = re.findall(r"^\| `:(\w+)[^`]*` \| (\w+) \|", SECTION, flags=re.MULTILINE)

    assert {(name, kind) for name, (_, kind) in AUTH_FAMILIES.items()} == set(rows)


def test_the_script_table_names_every_script_and_no_other() -> None:
    assert set(re.findall(r"`(auth/\w+)`", SECTION)) == set(verbs("auth"))


def test_every_field_of_a_family_is_explained(rig: AccessRig) -> None:
    furnish(rig)
    seen = {
        field.decode()
        for name in rig.names()
        if name.partition(":")[0] in ("renewal", "login", "uses")
        for field in rig.client.hkeys(f"{rig.root}:{name}")
        if name.startswith("renewal")
    }

    assert {"current", "previous", "previous_spent", "replaced", "spent"} <= seen
    assert all(f"`{field}" in SECTION for field in ("current", "previous_spent", "replaced", "spent"))


def test_every_command_of_the_page_answers(rig: AccessRig) -> None:
    """On records that have something of everything; the root and ids in it are this test's."""
    texts = furnish(rig)
    [family] = [name for name in rig.names() if name == f"family_of:{rig.namespace}/living"]
    stands_for = {
        "hq:{sys/auth}": rig.root,
        ":key:<id>": f":key:{texts['key'][4:16]}",
        "default": rig.namespace,
        "<agent>": "living",
        "<family>": (rig.client.get(f"{rig.root}:{family}") or b"").decode(),
    }
    commands = re.findall(r"`([A-Z]+ 'hq:[^`]*)`", SECTION)
    assert len(commands) == 6

    for line in commands:
        words = [line]
        for placeholder, value in stands_for.items():
            words = [word.replace(placeholder, value) for word in words]
        answer = rig.client.execute_command(*shlex.split(words[0]))  # type: ignore[no-untyped-call]

        assert answer not in (None, [], b"", 0, {}), line
