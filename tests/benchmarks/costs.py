"""What each verb costs inside Redis: calls that its script makes, and its time as a ratio to the least script's.

Calls are exact. Times are the least of many short runs of ours and of the least script in turn, so that whatever else
the machine does is in neither. `python -m tests.benchmarks.costs` writes `costs.json` anew.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Final

import msgspec
import redis as redis_py

from benchmarks.verbs import VERBS, FloorVerbs, OurVerbs, Verbs
from hybridq import AsyncQueue

FILE: Final = Path(__file__).with_name("costs.json")
BATCH: Final = 10
TIMED_BATCH: Final = 50
"""So many that the microseconds that a server counts in are small beside what is measured."""
ROUNDS: Final = 40
WARM_UP: Final = 3
NOW_MS: Final = 1_800_000_000_000
SCRIPTS: Final = ("evalsha", "eval", "fcall")


class Costs(msgspec.Struct, frozen=True, kw_only=True):
    """Figures by verb. Calls are of a script call with one job, and with `BATCH` jobs."""

    calls_of_one: dict[str, int]
    calls_of_batch: dict[str, int]
    time_ratio: dict[str, float]


def committed() -> dict[str, Costs]:
    """Return the figures that a change is held against, by engine."""
    return msgspec.json.decode(FILE.read_bytes(), type=dict[str, Costs])


async def calls(url: str, client: redis_py.Redis, namespace: str, batch: int) -> dict[str, int]:
    """Return how many commands each verb's script runs, a script call: the least of some rounds.

    Time stands still, so that no upkeep falls due, which is done by whichever call comes next; for that reason there is
    no TIME among the commands.
    """
    found: dict[str, int] = {}
    async with AsyncQueue("costs", redis=url, namespace=namespace, agent="costs") as queue:
        queue._now_ms = NOW_MS
        verbs = OurVerbs(queue)
        await _warm_up(verbs, batch)
        for _ in range(7):
            for verb in VERBS:
                _, inside = await _cost(verbs, verb, batch, client)
                found[verb] = min(found.get(verb, inside), inside)
    return found


async def time_ratios(url: str, client: redis_py.Redis, namespace: str, rounds: int = ROUNDS) -> dict[str, float]:
    """Return each verb's time as a multiple of the least script's, both with `TIMED_BATCH` jobs a call."""
    floor = await FloorVerbs.at(url)
    least: dict[tuple[str, str], float] = {}
    try:
        async with AsyncQueue("costs", redis=url, namespace=namespace, agent="costs") as queue:
            both: dict[str, Verbs] = {"ours": OurVerbs(queue), "floor": floor}
            for verbs in both.values():
                await _warm_up(verbs, TIMED_BATCH)
            for _ in range(rounds):
                for who, verbs in both.items():
                    for verb in VERBS:
                        time_us, _ = await _cost(verbs, verb, TIMED_BATCH, client)
                        least[who, verb] = min(least.get((who, verb), time_us), time_us)
    finally:
        floor.close()
    return {verb: least["ours", verb] / least["floor", verb] for verb in VERBS}


async def _warm_up(verbs: Verbs, n: int) -> None:
    """Live some lives that are not looked at: the first makes the queue, and loads scripts."""
    for _ in range(WARM_UP):
        for verb in VERBS:
            await verbs.do(verb, n)


async def _cost(verbs: Verbs, verb: str, n: int, client: redis_py.Redis) -> tuple[float, int]:
    """Do a verb once; return the µs inside the script and the commands that it ran."""
    client.config_resetstat()
    await verbs.do(verb, n)
    stats: dict[str, Any] = client.info("commandstats")
    ran = {name.removeprefix("cmdstat_"): one for name, one in stats.items()}
    scripts = [ran.pop(name) for name in SCRIPTS if name in ran]
    assert 1 == sum(int(one["calls"]) for one in scripts), f"{verb} of {n} jobs was not one script call: {ran}"
    ours = {"info", "config|resetstat", "config", "client|setinfo", "client|setname", "hello", "ping"}
    return float(scripts[0]["usec"]), sum(int(one["calls"]) for name, one in ran.items() if name not in ours)


def measure(url: str, namespace: str = "costs") -> Costs:
    """Return the figures of this checkout."""
    with redis_py.Redis.from_url(url) as client:
        return Costs(
            calls_of_one=asyncio.run(calls(url, client, f"{namespace}-one", 1)),
            calls_of_batch=asyncio.run(calls(url, client, f"{namespace}-batch", BATCH)),
            time_ratio={
                verb: round(ratio, 2) for verb, ratio in asyncio.run(time_ratios(url, client, namespace)).items()
            },
        )


if __name__ == "__main__":
    from benchmarks.server import ENGINES, Server

    found: dict[str, Costs] = {}
    for engine in ENGINES:
        with Server(engine, "off") as server:
            found[engine] = measure(server.url)
    FILE.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=1) + b"\n")
    print(FILE.read_text())
