"""saq: a job is in a set of active ones while it runs, and is swept when its worker dies."""

import asyncio
import logging
import time

import uvloop
from _protocol import Counter, Work, answer, wait_for_go
from saq import Queue, Worker


async def main():
    logging.disable(logging.CRITICAL)
    work = Work()
    queue = Queue.from_url(work.url)
    await queue.connect()
    counter = Counter(work)

    async def job(_ctx, *, payload):
        counter.note(payload)

    async def enqueue(tasks):
        left = iter(range(work.jobs))

        async def some():
            for _ in left:
                await queue.enqueue("job", payload=work.payload, ttl=-1)

        await asyncio.gather(*(some() for _ in range(tasks)))

    if work.works:
        if work.what == "drain":
            await enqueue(50)
        over, loop = asyncio.Event(), asyncio.get_running_loop()
        counter.when_done = lambda: loop.call_soon_threadsafe(over.set)
        worker = Worker(queue, functions=[("job", job)], concurrency=work.concurrency)
        wait_for_go()
        running = asyncio.create_task(worker.start())
        await over.wait()
        counter.finish()
        await running
    wait_for_go()
    begin_s = time.perf_counter()
    if work.what == "knock":
        for payload in work.knocks():
            await queue.enqueue("job", payload=payload, ttl=-1)
    else:
        await enqueue(work.tasks)
    answer(work.jobs, time.perf_counter() - begin_s)


uvloop.run(main())
