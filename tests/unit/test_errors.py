"""The tree that errors.py draws is the tree there is; every error says what to do and hides nothing it knows."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from hybridq import errors

CLASSES = {
    name: one
    for name, one in vars(errors).items()
    if inspect.isclass(one) and issubclass(one, Exception) and one.__module__ == errors.__name__
}
SAMPLES: dict[str, object] = {
    "url": "redis://host",
    "what": "payload",
    "name": "n",
    "looked_in": [Path("a"), Path("b")],
    "allowed": ["RUNNING"],
    "data_dir": Path("data"),
    "errors": {0: errors.JobNotFound("a")},
}


def _drawn() -> dict[str, str]:
    """class → its parent, as the module's docstring draws it."""
    tree = (errors.__doc__ or "").split("```")[1]
    parents: list[str] = []
    drawn = {}
    for line in tree.strip().splitlines():
        found = re.match(r"([│├└─ ]*)(\w+)", line)
        assert found is not None, line
        depth, name = len(found[1]) // 4, found[2]
        del parents[depth:]
        drawn[name] = parents[-1] if parents else "Exception"
        parents.append(name)
    return drawn


def test_the_drawn_tree_is_the_tree_of_classes() -> None:
    """Signals are not errors of hybridq and stand beside it."""
    there = {name: one.__bases__[0].__name__ for name, one in CLASSES.items() if issubclass(one, errors.HybridqError)}

    assert there == _drawn()


def test_everything_public_is_listed_in_order() -> None:
    """Sorted, complete."""
    assert sorted(CLASSES) == list(errors.__all__)


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_every_error_keeps_its_data_and_says_something(name: str) -> None:
    """Each argument is an attribute afterwards, and the message is one line."""
    one = CLASSES[name]
    parameters = (
        [] if one.__init__ is Exception.__init__ else list(inspect.signature(one.__init__).parameters.values())[1:]
    )
    given = {p.name: SAMPLES.get(p.name, 7 if p.annotation == "int" else "x") for p in parameters if p.name != "args"}
    given.pop("kwargs", None)

    error = one(**given)

    assert "\n" not in str(error)
    for key, value in given.items():
        kept = getattr(error, key)
        assert kept == value or list(kept) == value
    assert inspect.getdoc(one)


@pytest.mark.parametrize("name", [n for n, one in CLASSES.items() if issubclass(one, errors.UsageError)])
def test_wrong_calls_are_value_errors(name: str) -> None:
    """So that who does not know hybridq catches them as what they are."""
    assert issubclass(CLASSES[name], ValueError)


def test_a_missing_job_is_a_lookup_error() -> None:
    """As with every other collection."""
    assert issubclass(errors.JobNotFound, LookupError)


def test_a_long_value_is_cut_in_the_message() -> None:
    """A message is not the place for a megabyte."""
    assert len(str(errors.InvalidArgument("payload", "x" * 10_000, "short"))) < 200
