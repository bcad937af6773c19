"""Engines for tests that start servers of their own."""

from __future__ import annotations

import pytest

from tests import servers


def _present() -> list[str]:
    found = []
    for engine in servers.ENGINES:
        try:
            servers.find_binary(engine)
        except servers.EngineMissing:
            continue
        found.append(engine)
    return found


@pytest.fixture(params=_present())
def engine_name(request: pytest.FixtureRequest) -> str:
    """Each engine this machine has."""
    name: str = request.param
    return name
