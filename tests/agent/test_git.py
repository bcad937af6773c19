"""Checkouts of real repositories: the commit that was asked for, and nothing that its author or its name can do."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from hybridq.agent.work import Ended
from hybridq.agent.work.git import GitFailed, Repository
from hybridq.agent.work_of import Git
from hybridq.lifecycle import Outcome
from tests.agent.runs import Job

PROTOCOLS = ("file", "git", "https", "ssh")
NOWHERE = "0123456789abcdef0123456789abcdef01234567"


class Origin:
    """A repository with three commits on `main`, one on `side`, a tag, and a commit that no branch has any more."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir()
        self.git("init", "--quiet", "--initial-branch=main", ".")
        self.first, self.second, self.third = (self.commit(text) for text in ("one", "two", "three"))
        self.git("tag", "-a", "-m", "tag", "v1", self.second)
        self.git("checkout", "--quiet", "-b", "side", self.first)
        self.side = self.commit("side")
        self.git("checkout", "--quiet", "--detach", self.first)
        self.lost = self.commit("lost")
        self.git("checkout", "--quiet", "main")

    def git(self, *arguments: str, check: bool = True) -> str:
        who = {f"GIT_{role}_{what}": "a@example.org" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
        return subprocess.run(
            ["git", "-c", "protocol.file.allow=always", *arguments],
            cwd=self.path,
            env={**os.environ, **who, "GIT_CONFIG_GLOBAL": os.devnull},
            check=check,
            capture_output=True,
            text=True,
        ).stdout.strip()

    def commit(self, text: str) -> str:
        (self.path / "file").write_text(text)
        self.git("add", "-A")
        self.git("commit", "--quiet", "--message", text)
        return self.git("rev-parse", "HEAD")


@pytest.fixture
def origin(tmp_path: Path) -> Origin:
    return Origin(tmp_path / "origin")


def code_of(ended: Ended) -> str:
    assert ended.error is not None
    return str(ended.error["code"])


LOOK = 'cat file > $AT/file; echo; echo "$HYBRIDQ_GIT_COMMIT_SHA" > $AT/sha; git rev-parse HEAD > $AT/head'


@pytest.mark.parametrize("form", ["{}", "file://{}"])
@pytest.mark.parametrize(
    ("what", "text"),
    [
        ({}, "three"),
        ({"ref": "main"}, "three"),
        ({"ref": "refs/heads/side"}, "side"),
        ({"ref": "v1"}, "two"),
        ({"ref": "refs/tags/v1"}, "two"),
        ({"commit_sha": "third"}, "three"),
        ({"commit_sha": "first"}, "one"),
        ({"commit_sha": "first", "ref": "main"}, "one"),
        ({"commit_sha": "side", "ref": "main"}, "side"),
        ({"commit_sha": "lost"}, "lost"),
        ({"commit_sha": "short", "ref": "main"}, "two"),
    ],
    ids=str,
)
def test_the_commit_that_was_asked_for(
    tmp_path: Path, origin: Origin, form: str, what: dict[str, str], text: str
) -> None:
    asked = dict(what)
    if "commit_sha" in asked:
        asked["commit_sha"] = (
            origin.second[:10] if asked["commit_sha"] == "short" else vars(origin)[asked["commit_sha"]]
        )
    job = Job(tmp_path, LOOK, git=Git(repo=form.format(origin.path), **asked))  # type: ignore[arg-type]

    ended = job.end()

    assert ended.outcome == Outcome.SUCCESS, ended
    assert (tmp_path / "file").read_text() == text
    assert job.word("sha") == job.word("head") == ended.result["git"]["commit_sha"]


def test_a_single_commit_is_fetched_without_its_past(tmp_path: Path, origin: Origin) -> None:
    job = Job(
        tmp_path, "git rev-list --count HEAD > $AT/count", git=Git(repo=str(origin.path), commit_sha=origin.third)
    )

    job.end()

    assert job.number("count") == 1


def test_steps_are_told_what_was_checked_out(tmp_path: Path, origin: Origin) -> None:
    git = Git(repo=str(origin.path), ref="main", commit_message="three\n\nlines", author="a <a@b>")
    job = Job(tmp_path, 'printf "%s|" "$HYBRIDQ_GIT_REPO" "$HYBRIDQ_GIT_REF" "$HYBRIDQ_GIT_AUTHOR" > $AT/told', git=git)

    job.end()

    assert (tmp_path / "told").read_text() == f"{origin.path}|main|a <a@b>|"


@pytest.mark.parametrize(
    "what",
    [{"commit_sha": NOWHERE}, {"commit_sha": "abcdef012"}, {"ref": "nowhere"}, {"ref": "refs/heads/no"}],
    ids=str,
)
def test_a_commit_that_is_not_there_is_named(tmp_path: Path, origin: Origin, what: dict[str, str]) -> None:
    job = Job(tmp_path, "touch $AT/ran", git=Git(repo=str(origin.path), **what))  # type: ignore[arg-type]

    ended = job.end()

    assert ended.outcome == Outcome.INFRA_ERROR and code_of(ended) == "commit_not_found"
    assert ended.error is not None and next(iter(what.values())) in ended.error["message"]
    assert not (tmp_path / "ran").exists() and ended.result["steps"][0]["outcome"] == "skipped"


def test_a_repository_that_is_not_there_is_gits_failure_in_gits_words(tmp_path: Path) -> None:
    for what in ({"ref": "main"}, {"commit_sha": NOWHERE}):
        ended = Job(tmp_path, "true", git=Git(repo=str(tmp_path / "nowhere"), **what)).end()  # type: ignore[arg-type]

        assert ended.outcome == Outcome.INFRA_ERROR and code_of(ended) == "git_failed"
        assert ended.error is not None and "nowhere" in ended.error["message"]


def test_a_repository_of_another_user_can_be_read(tmp_path: Path, origin: Origin) -> None:
    """git itself refuses it, unless told otherwise where the program that reads it looks."""
    if os.geteuid() != 0:
        pytest.skip("files can be given away by root alone")
    for path in [origin.path, *origin.path.rglob("*")]:
        os.lchown(path, 12345, 12345)

    assert (
        Job(tmp_path, "true", git=Git(repo=str(origin.path), commit_sha=origin.first)).end().outcome == Outcome.SUCCESS
    )


def test_a_repository_of_the_other_kind_of_hashes(tmp_path: Path) -> None:
    path = tmp_path / "origin"
    path.mkdir()
    origin = Origin.__new__(Origin)
    origin.path = path
    origin.git("init", "--quiet", "--object-format=sha256", "--initial-branch=main", ".")
    sha = origin.commit("long")

    ended = Job(tmp_path, "true", git=Git(repo=str(path), commit_sha=sha)).end()

    assert len(sha) == 64 and ended.outcome == Outcome.SUCCESS


# -- what a name can do --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "repo",
    [
        "--upload-pack=touch ${AT}/hacked",
        "-u=touch hacked",
        "ext::sh -c touch% /tmp/hacked",
        "fd::17",
        "EXT::sh -c x",
        "foo-bar::x",
        "ssh://-oProxyCommand=touch hacked/x",
        "ssh://-oProxyCommand=x@host/x",
        "-oProxyCommand=touch hacked:x",
        "host:-x",
        "http://example.org/x",
        "ftp://example.org/x",
        "gopher://x/y",
        "relative/path",
        ".",
        "",
        "a\nb",
        "/tmp/a\tb",
        "https:///x",
        "https://[::1/x",
        "git+ssh://host/x",
        "~/x",
    ],
)
def test_a_hostile_repository_is_rejected_before_git_sees_it(tmp_path: Path, repo: str) -> None:
    ended = Job(tmp_path, "true", git=Git(repo=repo)).end()

    assert ended.outcome == Outcome.REJECTED and code_of(ended) == "repository_refused"
    assert "hacked" not in str(ended.error)


@pytest.mark.parametrize(
    "what",
    [
        *(
            {"ref": ref}
            for ref in ("-x", "--upload-pack=x", "a..b", "a:b", "+a", "*", "a b", "a\n", "^a", "@{1}", "a/", "")
        ),
        *(
            {"commit_sha": sha}
            for sha in ("HEAD", "--help", NOWHERE.upper().replace("0", "A"), NOWHERE + "\n", "abc", "")
        ),
    ],
    ids=str,
)
def test_a_hostile_ref_or_commit_is_rejected_before_git_sees_it(
    tmp_path: Path, origin: Origin, what: dict[str, str]
) -> None:
    ended = Job(tmp_path, "true", git=Git(repo=str(origin.path), **what)).end()  # type: ignore[arg-type]

    assert ended.outcome == Outcome.REJECTED and code_of(ended) == "repository_refused"


@pytest.mark.parametrize(
    ("text", "local"),
    [
        ("https://example.org/a/b.git", False),
        ("HTTPS://example.org/a", False),
        ("ssh://git@example.org:22/~/a b", False),
        ("git@example.org:a/b.git", False),
        ("example.org:a", False),
        ("git://example.org/a", False),
        ("file:///a/b c", True),
        ("/a/b c", True),
        ("/a::b", True),
        ("https://example.org/a::b", False),
    ],
)
def test_usual_names_are_left_as_they_are(text: str, local: bool) -> None:
    assert Repository.parse(text, PROTOCOLS) == Repository(text, None, (), local)


def test_the_operators_list_of_protocols_holds() -> None:
    for text in ("/a", "file:///a", "git@host:a", "git://host/a"):
        with pytest.raises(GitFailed, match="not allowed"):
            Repository.parse(text, ("https",))
    assert Repository.parse("http://host/a", ("http",)).url == "http://host/a"


@pytest.mark.parametrize(
    ("text", "url", "secrets"),
    [
        ("https://me:s3cr%40t@host/a", "https://host/a", ("s3cr%40t", "s3cr@t")),
        ("https://token@host:8443/a?b", "https://host:8443/a?b", ("token",)),
        ("ssh://me:secret@host/a", "ssh://me@host/a", ("secret",)),
    ],
)
def test_credentials_in_a_url_are_secrets(text: str, url: str, secrets: tuple[str, ...]) -> None:
    assert Repository.parse(text, PROTOCOLS) == Repository(url, text, secrets, False)


def test_credentials_of_a_url_are_used_and_seen_by_no_step(
    tmp_path: Path, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An ssh that writes down what it is called with and serves the repository stands for a host."""
    ssh = tmp_path / "ssh"
    ssh.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/called\nexec git upload-pack {origin.path}\n')
    ssh.chmod(0o755)
    monkeypatch.setenv("GIT_SSH_COMMAND", str(ssh))
    look = (
        "env > $AT/env; cat .git/config > $AT/config; find $HYBRIDQ_WORKSPACE/.. -type f | xargs grep -l pass-word; :"
    )
    job = Job(tmp_path, look, git=Git(repo="ssh://me:pass-word@example.invalid/a", ref="main"))

    ended = job.end()

    assert ended.outcome == Outcome.SUCCESS, ended
    assert "me:pass-word@example.invalid" in (tmp_path / "called").read_text()
    for text in (job.word("env"), job.word("config"), job.text(), str(ended)):
        assert "pass-word" not in text.replace("xargs grep -l pass-word", "")


# -- what a repository can do --------------------------------------------------------------------


def test_no_hook_runs_whoever_put_it_there(tmp_path: Path, origin: Origin, monkeypatch: pytest.MonkeyPatch) -> None:
    hooks = tmp_path / "template" / "hooks"
    hooks.mkdir(parents=True)
    for name in ("post-checkout", "reference-transaction", "post-index-change", "fsmonitor"):
        for folder in (hooks, origin.path / ".git" / "hooks"):
            (folder / name).write_text(f"#!/bin/sh\ntouch {tmp_path}/hooked\n")
            (folder / name).chmod(0o755)
    config = tmp_path / "config"
    config.write_text(
        f"[init]\n\ttemplateDir = {hooks.parent}\n[core]\n\thooksPath = {hooks}\n\tfsmonitor = {hooks}/fsmonitor\n"
    )
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))

    ended = Job(tmp_path, "test -e file; ls .git/hooks || true", git=Git(repo=str(origin.path), ref="main")).end()

    assert ended.outcome == Outcome.SUCCESS
    assert not (tmp_path / "hooked").exists()


def test_the_operators_own_settings_of_git_are_used(
    tmp_path: Path, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text(f'[url "{origin.path}"]\n\tinsteadOf = https://example.invalid/repo\n')
    monkeypatch.delenv("GIT_CONFIG_GLOBAL", raising=False)
    monkeypatch.setenv("HOME", str(home))

    ended = Job(tmp_path, "test -e file", git=Git(repo="https://example.invalid/repo", ref="main")).end()

    assert ended.outcome == Outcome.SUCCESS, ended


def test_submodules_and_filters_of_a_repository_do_nothing(tmp_path: Path, origin: Origin) -> None:
    """Neither one that is an option, nor one that leads out, nor a smudge filter that names a program."""
    (origin.path / ".gitmodules").write_text(
        '[submodule "x"]\n\tpath = x\n\turl = --upload-pack=touch hacked\n'
        f'[submodule "../../y"]\n\tpath = y\n\turl = ext::touch {tmp_path}/hacked\n'
        f"\tupdate = !touch {tmp_path}/hacked\n"
    )
    (origin.path / ".gitattributes").write_text("* filter=evil diff=evil merge=evil\n")
    origin.git("config", "filter.evil.smudge", f"touch {tmp_path}/hacked; cat")
    origin.git("config", "uploadpack.packObjectsHook", f"touch {tmp_path}/hacked;")
    origin.git("update-index", "--add", "--cacheinfo", f"160000,{origin.first},x")
    sha = origin.commit("hostile")

    ended = Job(tmp_path, LOOK, git=Git(repo=str(origin.path), commit_sha=sha)).end()

    assert ended.outcome == Outcome.SUCCESS
    assert not (tmp_path / "hacked").exists() and (tmp_path / "file").read_text() == "hostile"


def test_a_tree_that_would_write_outside_is_not_checked_out(tmp_path: Path, origin: Origin) -> None:
    """A file below a link of the same tree, made by hand as no honest git would."""
    blob = origin.git("hash-object", "-w", "file")
    link = subprocess.run(
        ["git", "hash-object", "-w", "--stdin"], cwd=origin.path, input=str(tmp_path), text=True, capture_output=True
    ).stdout.strip()
    tree = subprocess.run(
        ["git", "mktree"], cwd=origin.path, input=f"100644 blob {blob}\thacked\n", text=True, capture_output=True
    ).stdout.strip()
    both = subprocess.run(
        ["git", "mktree", "--missing"],
        cwd=origin.path,
        input=f"120000 blob {link}\ta\n040000 tree {tree}\ta\n",
        text=True,
        capture_output=True,
    ).stdout.strip()
    sha = origin.git("commit-tree", both, "-m", "hostile")
    origin.git("branch", "hostile", sha)

    Job(tmp_path, "true", git=Git(repo=str(origin.path), ref="hostile")).end()

    assert not (tmp_path / "hacked").exists()


def test_a_prompt_fails_instead_of_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands for a host asks git for a password, as git itself would ask the terminal."""
    ssh = tmp_path / "ssh"
    ssh.write_text("#!/bin/sh\nprintf 'protocol=https\\nhost=h\\n\\n' | git credential fill\nexit 128\n")
    ssh.chmod(0o755)
    monkeypatch.setenv("GIT_SSH_COMMAND", str(ssh))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)

    ended = Job(tmp_path, "true", git=Git(repo="host:a", ref="main")).end()

    assert ended.outcome == Outcome.INFRA_ERROR and code_of(ended) == "git_failed"
    assert ended.error is not None and "terminal prompts disabled" in ended.error["message"]
