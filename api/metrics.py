"""What `/metrics` says: requests as they end, and the queues as they are at the moment of the scrape.

Nothing about a queue is counted in this process: every process of a fleet would tell another part of the truth. The
figures come from Redis with each scrape, in one batch for all pools. Labels are route templates, pools and statuses,
never ids, so the number of series is bounded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

import msgspec
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder

from hybridq import QueueStats

__all__ = ["POOLS_MAX", "Metrics", "QueueFigures"]

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series beside every counter, which nobody reads

POOLS_MAX: Final = 1_000
"""Pools shown in one scrape; `hybridq_pools_left_out` tells how many are not."""
_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0)
DEPTHS: Final = ("queued", "scheduled", "blocked", "claimed", "running", "dead_lettered")
OUTCOMES: Final = ("completed", "failed", "dead_lettered", "cancelled")


class QueueFigures(msgspec.Struct, frozen=True, kw_only=True):
    """What a scrape read from Redis. `reachable` false: nothing, as Redis was away."""

    reachable: bool
    pools: Mapping[str, QueueStats] = {}
    pools_left_out: int = 0
    agents: Mapping[str, int] = {}


class Metrics:
    """The figures of this process. `parked`: how many claims wait here now."""

    def __init__(self, *, parked: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        self._parked = parked
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        self._requests = Counter(
            "hybridq_http_requests",
            "Requests answered, by route template; status 499: the client left before the answer.",
            ("method", "route", "status"),
            registry=self._registry,
        )
        self._duration = Histogram(
            "hybridq_http_request_duration_seconds",
            "Time from a request's headers to the end of its answer; long polls and streams wait on purpose.",
            ("method", "route"),
            registry=self._registry,
            buckets=_SECONDS,
        )
        self._series: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        """The two of each kind of request, which the registry would look up by text each time."""

    def observe(self, method: str, route: str, status: int, took_s: float) -> None:
        """Count one request. `route` is its template, such as `/api/queue/jobs/{id}`."""
        kind = (method, route, status)
        found = self._series.get(kind)
        if found is None:
            found = self._requests.labels(method, route, status), self._duration.labels(method, route)
            self._series[kind] = found
        requests, duration = found
        requests.inc()
        duration.observe(took_s)

    def text(self, figures: QueueFigures, accept: str = "") -> tuple[bytes, str]:
        """Return the answer to a scrape and its content type, in the format that `accept` asks for."""
        encode, content_type = choose_encoder(accept)
        return encode(_Together(self._registry, _Scrape(figures, self._parked()))), content_type


class _Together:
    """A registry of several: what the encoders ask for is `collect` alone."""

    def __init__(self, *parts: CollectorRegistry | _Scrape) -> None:
        self._parts = parts

    def collect(self) -> Iterator[Metric]:
        for part in self._parts:
            yield from part.collect()


class _Scrape:
    def __init__(self, figures: QueueFigures, parked: int) -> None:
        self._figures, self._parked = figures, parked

    def collect(self) -> Iterable[Metric]:
        yield _gauge("hybridq_claims_parked", "Claims that wait in this process for a job.", (), [((), self._parked)])
        up = float(self._figures.reachable)
        yield _gauge("hybridq_redis_up", "1 when this scrape could read from Redis.", (), [((), up)])
        pools = sorted(self._figures.pools.items())
        yield _gauge(
            "hybridq_queue_depth",
            "Jobs of a pool by status.",
            ("pool", "status"),
            [((pool, name.upper()), getattr(stats, name)) for pool, stats in pools for name in DEPTHS],
        )
        yield _gauge(
            "hybridq_queue_wait_seconds",
            "Time from claimable to claimed, over the last 5 minutes.",
            ("pool", "stat"),
            [
                ((pool, stat), value)
                for pool, stats in pools
                for stat, value in (("avg", stats.window.avg_wait_s), ("p95", stats.window.p95_wait_s))
            ],
        )
        yield _gauge(
            "hybridq_queue_failure_rate",
            "Failed and dead-lettered among all that ended, over the last 5 minutes.",
            ("pool",),
            [((pool,), stats.window.failure_rate) for pool, stats in pools],
        )
        yield _gauge(
            "hybridq_agents",
            "Agents by status.",
            ("status",),
            [((status,), count) for status, count in sorted(self._figures.agents.items())],
        )
        # Declared, so that dashboards may name it; a sample would claim to know of deployments.
        yield _gauge("hybridq_deployments", "Deployments by status.", ("status",), [])
        jobs = CounterMetricFamily("hybridq_jobs", "Jobs that ended, ever, by outcome.", labels=("pool", "outcome"))
        for pool, stats in pools:
            for outcome in OUTCOMES:
                jobs.add_metric((pool, outcome), _ended(stats, outcome))
        yield jobs
        yield _gauge(
            "hybridq_pools_left_out", "Pools beyond the most a scrape shows.", (), [((), self._figures.pools_left_out)]
        )


def _ended(stats: QueueStats, outcome: str) -> int:
    count: int = getattr(stats, f"{outcome}_total")
    return count


def _gauge(
    name: str, doc: str, labels: Sequence[str], samples: Iterable[tuple[Sequence[str], float]]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, doc, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family
