"""BullMQ in Python: a job has a lock while it runs, and is taken for stalled when nobody renews it."""

import asyncio
import time

import uvloop
from _protocol import Counter, Work, answer, wait_for_go
from bullmq import Queue, Worker


async def main():
    work = Work()
    queue = Queue("bench", {"connection": work.url})
    counter = Counter(work)
    options = {"removeOnComplete": True}

    async def bulk():
        for first in range(0, work.jobs, 500):
            count = min(500, work.jobs - first)
            await queue.addBulk([{"name": "job", "data": work.payload, "opts": options} for _ in range(count)])

    async def job(job, _token):
        counter.note(job.data)

    if work.works:
        if work.what == "drain":
            await bulk()
        over, loop = asyncio.Event(), asyncio.get_running_loop()
        counter.when_done = lambda: loop.call_soon_threadsafe(over.set)
        wait_for_go()
        worker = Worker("bench", job, {"connection": work.url, "concurrency": work.concurrency})
        await over.wait()
        counter.finish()
        await worker.close(True)
    wait_for_go()
    begin_s = time.perf_counter()
    if work.what == "knock":
        for payload in work.knocks():
            await queue.add("job", payload, options)
    elif work.how == "bulk":
        await bulk()
    else:
        left = iter(range(work.jobs))

        async def some():
            for _ in left:
                await queue.add("job", work.payload, options)

        await asyncio.gather(*(some() for _ in range(work.tasks)))
    answer(work.jobs, time.perf_counter() - begin_s)


uvloop.run(main())
