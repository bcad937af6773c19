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
    counter = Counter(work.jobs)

    async def job(_ctx, *, payload):
        counter.note()

    async def enqueue(concurrency):
        left = iter(range(work.jobs))

        async def some():
            for _ in left:
                await queue.enqueue("job", payload=work.payload, ttl=-1)

        await asyncio.gather(*(some() for _ in range(concurrency)))

    if work.what == "drain":
        await enqueue(50)
        over = asyncio.Event()
        loop = asyncio.get_running_loop()
        counter.when_done = lambda: loop.call_soon(over.set)
        worker = Worker(queue, functions=[("job", job)], concurrency=work.concurrency)
        wait_for_go()
        running = asyncio.create_task(worker.start())
        await over.wait()
        counter.answer()
        await worker.stop()
        running.cancel()
        return
    wait_for_go()
    begin_s = time.perf_counter()
    await enqueue(50 if work.how != "one" else 1)
    answer(work.jobs, time.perf_counter() - begin_s)


uvloop.run(main())
