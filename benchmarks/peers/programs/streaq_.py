"""streaQ: a stream's group holds what is being run, and other workers take over what is not renewed."""

import asyncio
import logging
import time

import uvloop
from _protocol import Counter, Work, answer, wait_for_go
from streaq import Worker

logging.disable(logging.CRITICAL)
work = Work()
counter = Counter(work)
worker = Worker(redis_url=work.url, concurrency=work.concurrency, handle_signals=False)


@worker.task(ttl=0)
async def job(payload):
    counter.note(payload)


async def bulk():
    for first in range(0, work.jobs, 500):
        await worker.enqueue_many([job.enqueue(work.payload) for _ in range(min(500, work.jobs - first))])


async def serve():
    if work.what == "drain":
        async with worker:
            await bulk()
    over, loop = asyncio.Event(), asyncio.get_running_loop()
    counter.when_done = lambda: loop.call_soon_threadsafe(over.set)
    wait_for_go()
    running = asyncio.create_task(worker.run_async())
    await over.wait()
    counter.finish()
    await running


async def enqueue():
    async with worker:
        wait_for_go()
        begin_s = time.perf_counter()
        if work.what == "knock":
            for payload in work.knocks():
                await job.enqueue(payload)
        elif work.how == "bulk":
            await bulk()
        else:
            left = iter(range(work.jobs))

            async def some():
                for _ in left:
                    await job.enqueue(work.payload)

            await asyncio.gather(*(some() for _ in range(work.tasks)))
        answer(work.jobs, time.perf_counter() - begin_s)


uvloop.run(serve() if work.works else enqueue())
