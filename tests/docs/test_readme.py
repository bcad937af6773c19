"""What README.md shows is what the code does."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

from hybridq import JobStatus, Queue
from hybridq.lifecycle import TRANSITIONS

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_drawing_has_every_move_and_no_other() -> None:
    """The Mermaid drawing is read back into the table of moves."""
    block = TEXT[TEXT.index("stateDiagram-v2") :].partition("```")[0]
    drawn: dict[str, set[tuple[str, str]]] = {}
    for source, target, names in re.findall(r"(\S+) --> (\S+): (.+)", block):
        for verb in names.split(", "):
            drawn.setdefault(verb, set()).add((source.replace("[*]", "NEW"), target.replace("[*]", "NEW")))

    assert {verb: set(pairs) for verb, pairs in TRANSITIONS.items()} == drawn


def test_the_first_example_runs_as_it_stands(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pasted into a file and run, it does one job and prints its figures."""
    monkeypatch.setenv("HYBRIDQ_REDIS_URL", redis_url)
    example = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)[0]

    exec(compile(textwrap.dedent(example), "README.md", "exec"), {})

    assert "4f2a91c" in capsys.readouterr().out
    with Queue("builds") as queue:
        assert [JobStatus.COMPLETED] == [job.status for job in queue.jobs().items]


def test_the_tour_names_files_that_exist() -> None:
    """A tour past a house that is gone helps nobody."""
    section = TEXT[TEXT.index("## A tour") : TEXT.index("## Limits")]
    names = re.findall(r"`([\w/.]+(?:\.\w+|/))`", section)

    assert len(names) > 20
    for name in names:
        found = [ROOT / name, ROOT / "lua" / "lib" / name]
        assert any(path.exists() for path in found), name


def test_the_table_of_log_events_names_those_that_are_written() -> None:
    """Somebody has built an alarm on each of them."""
    written = {
        name
        for folder in ("hybridq", "api")
        for path in (ROOT / folder).rglob("*.py")
        for name in re.findall(
            r"log(?:\.(?:debug|info|warning|error|exception))?\(\s*\"([a-z_]+\.[a-z_]+)\"",
            path.read_text(encoding="utf-8"),
        )
    }
    table = TEXT[TEXT.index("| event | level |") :].partition("\n\n")[0]

    assert written == set(re.findall(r"`([a-z_]+\.[a-z_]+)`", table))
