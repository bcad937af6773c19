"""A worker in a process of its own: `python -m tests.worker.process URL NAMESPACE AGENT OPTIONS`, options as JSON.

Its handlers tell of themselves by keys of the server: `began:<job_id>` counts runs, `go` lets them end.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import redis

from hybridq import AsyncQueue, Lease
from hybridq.worker import Worker, find_workers, run_workers

POLL_S = 0.01

url, namespace, agent, options = sys.argv[1:]
client = redis.Redis.from_url(url)
worker = Worker(AsyncQueue("work", redis=url, namespace=namespace, agent=agent, lease_s=1), **json.loads(options))


@worker.task("wait")
async def wait(lease: Lease) -> str:
    """Go on until `go`, and let others run meanwhile."""
    client.incr(f"began:{lease.job_id}")
    while not client.exists("go"):
        await asyncio.sleep(POLL_S)
    return agent


@worker.task("hang")
def hang(lease: Lease) -> str:
    """Go on until `go`, in a thread that nobody can interrupt."""
    client.incr(f"began:{lease.job_id}")
    while not client.exists("go"):
        time.sleep(POLL_S)
    return agent


if __name__ == "__main__":
    run_workers(find_workers(sys.modules[__name__]))
