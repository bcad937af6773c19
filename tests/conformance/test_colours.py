"""The colours have the same methods, in the same order, with the same parameters and the same words for them."""

from __future__ import annotations

import inspect
import re

import pytest

from hybridq import Access, AsyncAccess, AsyncFleet, AsyncQueue, Fleet, Queue
from hybridq.aio import AsyncDeadLetters
from hybridq.client import DeadLetters

PAIRS = [(Queue, AsyncQueue), (DeadLetters, AsyncDeadLetters), (Fleet, AsyncFleet), (Access, AsyncAccess)]
METHODS = [
    pytest.param(sync, aio, name, id=f"{sync.__name__}.{name}")
    for sync, aio in PAIRS
    for name in vars(sync)
    if not name.startswith("_") and callable(getattr(sync, name))
]
RETURNS_ITS_OWN_KIND = {"follow_log", "hold"}
"""Not awaited themselves, but what is done with what they return."""
SAYS_MORE = {"close"}
"""Closing an async queue also answers the claims that wait in it."""


@pytest.mark.parametrize(("sync", "aio"), PAIRS)
def test_methods_come_in_the_same_order(sync: type, aio: type) -> None:
    def public(kind: type) -> list[str]:
        return [name for name in vars(kind) if not name.startswith("_")]

    assert public(sync) == public(aio)


@pytest.mark.parametrize(("sync", "aio", "name"), METHODS)
def test_parameters_are_the_same(sync: type, aio: type, name: str) -> None:
    one, other = inspect.signature(getattr(sync, name)), inspect.signature(getattr(aio, name))

    assert list(one.parameters.values()) == list(other.parameters.values())
    if name not in RETURNS_ITS_OWN_KIND:
        assert one.return_annotation == other.return_annotation


@pytest.mark.parametrize(("sync", "aio", "name"), METHODS)
def test_docstrings_are_the_same(sync: type, aio: type, name: str) -> None:
    one, other = inspect.getdoc(getattr(sync, name)), inspect.getdoc(getattr(aio, name))

    assert one and other
    if name not in SAYS_MORE:
        assert one == other


@pytest.mark.parametrize(("sync", "aio", "name"), METHODS)
def test_what_a_docstring_names_is_a_parameter_or_known(sync: type, aio: type, name: str) -> None:
    """A parameter that was renamed must not live on in the text: every `name=` in it is one."""
    text = inspect.getdoc(getattr(sync, name)) or ""
    parameters = set(inspect.signature(getattr(sync, name)).parameters)

    assert {word for word in re.findall(r"`(\w+)=", text)} <= parameters


@pytest.mark.parametrize("kind", [Queue, AsyncQueue, Fleet, AsyncFleet, Access, AsyncAccess])
def test_the_class_describes_its_parameters(kind: type) -> None:
    text = inspect.getdoc(kind) or ""
    described = re.findall(r"^    (\w+): ", text, re.MULTILINE)

    assert described == [name for name in inspect.signature(kind).parameters if name in described]
    assert set(inspect.signature(kind).parameters) == set(described)


def test_constructors_are_the_same() -> None:
    assert inspect.signature(Queue) == inspect.signature(AsyncQueue)
    assert inspect.signature(Fleet) == inspect.signature(AsyncFleet)
    assert inspect.signature(Access) == inspect.signature(AsyncAccess)


@pytest.mark.parametrize(("sync", "aio", "name"), METHODS)
def test_only_what_does_io_is_awaited(sync: type, aio: type, name: str) -> None:
    assert not inspect.iscoroutinefunction(getattr(sync, name))
    assert inspect.iscoroutinefunction(getattr(aio, name)) is (name not in RETURNS_ITS_OWN_KIND)
