"""docket: a stream's group holds what is being run. It checks every 5 ms instead of 250, for it sleeps when full."""

import asyncio
import logging
import time
from datetime import timedelta

import uvloop
from _protocol import Counter, Work, answer, wait_for_go
from docket import Docket, Worker

logging.disable(logging.CRITICAL)
work = Work()
counter = Counter(work)
CHECK = timedelta(milliseconds=5)


async def job(payload):
    counter.note(payload)


async def bulk(docket):
    for first in range(0, work.jobs, 500):
        await docket.add_many([docket.call(job)(work.payload) for _ in range(min(500, work.jobs - first))])


async def main():
    async with Docket(name="bench", url=work.url, execution_ttl=timedelta(0)) as docket:
        docket.register(job)
        if work.works:
            if work.what == "drain":
                await bulk(docket)
            over, loop = asyncio.Event(), asyncio.get_running_loop()
            counter.when_done = lambda: loop.call_soon_threadsafe(over.set)
            wait_for_go()
            async with Worker(
                docket,
                concurrency=work.concurrency,
                minimum_check_interval=CHECK,
                scheduling_resolution=CHECK,
            ) as worker:
                running = asyncio.create_task(worker.run_forever())
                await over.wait()
                counter.finish()
                await running
        wait_for_go()
        begin_s = time.perf_counter()
        if work.what == "knock":
            for payload in work.knocks():
                await docket.add(job)(payload)
        elif work.how == "bulk":
            await bulk(docket)
        else:
            left = iter(range(work.jobs))

            async def some():
                for _ in left:
                    await docket.add(job)(work.payload)

            await asyncio.gather(*(some() for _ in range(work.tasks)))
        answer(work.jobs, time.perf_counter() - begin_s)


uvloop.run(main())
