"""arq, with a poll delay of 2 ms instead of 500: the setting its users choose for speed."""

import asyncio
import time

import uvloop
from _protocol import Counter, Work, answer, wait_for_go
from arq import create_pool
from arq.connections import RedisSettings
from arq.worker import Worker, func


async def main():
    work = Work()
    settings = RedisSettings.from_dsn(work.url)
    pool = await create_pool(settings)
    counter = Counter(work)

    async def job(_ctx, payload):
        counter.note(payload)

    async def enqueue(tasks):
        left = iter(range(work.jobs))

        async def some():
            for _ in left:
                await pool.enqueue_job("job", work.payload)

        await asyncio.gather(*(some() for _ in range(tasks)))

    if work.works:
        if work.what == "drain":
            await enqueue(50)
        over, loop = asyncio.Event(), asyncio.get_running_loop()
        counter.when_done = lambda: loop.call_soon_threadsafe(over.set)
        worker = Worker(
            [func(job, name="job")],
            redis_settings=settings,
            poll_delay=0.002,
            keep_result=0,
            max_jobs=work.concurrency,
            handle_signals=False,
            queue_read_limit=1000,
        )
        wait_for_go()
        running = asyncio.create_task(worker.async_run())
        await over.wait()
        counter.finish()
        await running
    wait_for_go()
    begin_s = time.perf_counter()
    if work.what == "knock":
        for payload in work.knocks():
            await pool.enqueue_job("job", payload)
    else:
        await enqueue(work.tasks)
    answer(work.jobs, time.perf_counter() - begin_s)


uvloop.run(main())
