"""What the jobs of the demo run: each step is a process of its own, and real work on a copy of a source tree.

    python steps.py manifest TREE OUT      SHA-256 of every source file, into OUT/manifest.txt
    python steps.py build KIND TREE OUT    sdist or wheel, by the tree's own build backend, into OUT
    python steps.py compile TREE OUT       every Python file to bytecode, into OUT/bytecode
    python steps.py tests TREE OUT         the tests that are there, by pytest where it is installed
    python steps.py hash DIRECTORY KIND    SHA-256 of the artifact a build left
    python steps.py smoke                  a test that fails in its first two attempts
    python steps.py lint FILE              whether a file is Python

Needs the standard library alone. The last line of a step's output is a JSON object of facts, kept as the job's result.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import json
import os
import py_compile
import shutil
import subprocess
import sys
import tomllib
import unittest
import xml.etree.ElementTree as xml
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

SUFFIXES = {"sdist": ".tar.gz", "wheel": ".whl"}
LUCKY_ATTEMPT = 3

Facts = dict[str, Any]


def run_manifest(tree: str, out: str) -> Facts:
    """Hash every file of the tree; the same tree always gives the same manifest."""
    lines, size_bytes = [], 0
    for path in _files(Path(tree)):
        data = path.read_bytes()
        size_bytes += len(data)
        lines.append(f"{hashlib.sha256(data).hexdigest()}  {path.relative_to(tree).as_posix()}\n")
    text = "".join(lines)
    (Path(out) / "manifest.txt").write_text(text)
    return {"files": len(lines), "bytes": size_bytes, "sha256": hashlib.sha256(text.encode()).hexdigest()}


def run_build(kind: str, tree: str, out: str) -> Facts:
    """Call the build backend of the tree as PEP 517 says, in a copy of its own: backends write beside sources."""
    scratch = Path(out) / f"build-{kind}"
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(tree, scratch)
    project = scratch / "pyproject.toml"
    system = tomllib.loads(project.read_text()).get("build-system", {}) if project.exists() else {}
    target = Path(out) / kind
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    os.chdir(scratch)
    sys.path[:0] = [str(scratch / entry) for entry in system.get("backend-path", [])]
    module, _, attribute = system.get("build-backend", "setuptools.build_meta:__legacy__").partition(":")
    backend: Any = importlib.import_module(module)
    if attribute:
        backend = getattr(backend, attribute)
    hook = backend.build_sdist if kind == "sdist" else backend.build_wheel
    name = hook(str(target))
    return {"artifact": name, "bytes": (target / name).stat().st_size}


def run_compile(tree: str, out: str) -> Facts:
    """Compile every Python file of the tree; all that cannot be compiled are named before the step fails."""
    done, bad = 0, []
    for path in _files(Path(tree)):
        if path.suffix == ".py":
            target = Path(out) / "bytecode" / path.relative_to(tree).with_suffix(".pyc")
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                py_compile.compile(str(path), cfile=str(target), doraise=True)
            except py_compile.PyCompileError as problem:
                bad.append(problem.msg.strip())
            done += 1
    if bad:
        raise SystemExit("\n".join(bad))
    return {"compiled": done}


def run_tests(tree: str, out: str) -> Facts:
    """Run `tests/unit` or else `tests` of the tree; without either there is nothing to run."""
    folder = next((name for name in ("tests/unit", "tests") if (Path(tree) / name).is_dir()), None)
    if folder is None:
        return {"passed": 0, "folder": None}
    os.chdir(tree)
    counted = _by_pytest if importlib.util.find_spec("pytest") else _by_unittest
    return {"passed": counted(folder, Path(out) / "tests.xml"), "folder": folder}


def _by_pytest(folder: str, report: Path) -> int:
    command = [sys.executable, "-m", "pytest", folder, "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
    subprocess.run(command, check=True)
    suites = list(xml.parse(report).getroot().iter("testsuite"))
    ran = sum(int(suite.get("tests", 0)) for suite in suites)
    return ran - sum(int(suite.get("skipped", 0)) for suite in suites)


def _by_unittest(folder: str, _report: Path) -> int:
    sys.path.insert(0, os.getcwd())
    suite = unittest.defaultTestLoader.discover(folder, top_level_dir=".")
    result = unittest.TextTestRunner(stream=sys.stdout).run(suite)
    if not result.wasSuccessful():
        raise SystemExit("tests failed")
    return result.testsRun - len(result.skipped)


def run_hash(directory: str, kind: str) -> Facts:
    """Hash what a build left in the directory."""
    [artifact] = Path(directory).glob(f"*{SUFFIXES[kind]}")
    data = artifact.read_bytes()
    return {"artifact": artifact.name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def run_smoke() -> Facts:
    """Run a flaky test: what it tests is how often it was tried."""

    class Smoke(unittest.TestCase):
        def test_third_time_lucky(self) -> None:
            attempt = int(os.environ["HYBRIDQ_ATTEMPT"])
            self.assertGreaterEqual(attempt, LUCKY_ATTEMPT, f"flaky on purpose: this is attempt {attempt}")

    suite = unittest.defaultTestLoader.loadTestsFromTestCase(Smoke)
    if not unittest.TextTestRunner(stream=sys.stdout).run(suite).wasSuccessful():
        raise SystemExit(f"smoke test failed in attempt {os.environ['HYBRIDQ_ATTEMPT']}")
    return {"lucky_attempt": int(os.environ["HYBRIDQ_ATTEMPT"])}


def run_lint(file: str) -> Facts:
    """Parse one file."""
    text = Path(file).read_text()
    try:
        compile(text, file, "exec")
    except SyntaxError as wrong:
        raise SystemExit(f"{Path(file).name}:{wrong.lineno}: {wrong.msg}") from None
    return {"lines": len(text.splitlines())}


def _files(tree: Path) -> Iterator[Path]:
    return (path for path in sorted(tree.rglob("*")) if path.is_file() and not path.is_symlink())


STEPS: dict[str, Callable[..., Facts]] = {
    "manifest": run_manifest,
    "build": run_build,
    "compile": run_compile,
    "tests": run_tests,
    "hash": run_hash,
    "smoke": run_smoke,
    "lint": run_lint,
}


def main(arguments: list[str]) -> None:
    """Run one step and print its facts."""
    name, *rest = arguments
    facts = STEPS[name](*rest)
    sys.stdout.flush()
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
