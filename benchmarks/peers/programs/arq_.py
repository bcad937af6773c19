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
    counter = Counter(work.jobs)

    async def job(_ctx, payload):
        counter.note()

    async def enqueue(concurrency):
        left = iter(range(work.jobs))

        async def some():
            for _ in left:
                await pool.enqueue_job("job", work.payload)

        await asyncio.gather(*(some() for _ in range(concurrency)))

    if work.what == "drain":
        await enqueue(50)
        worker = Worker(
            [func(job, name="job")],
            redis_settings=settings,
            burst=True,
            poll_delay=0.002,
            keep_result=0,
            max_jobs=work.concurrency,
            handle_signals=False,
            queue_read_limit=1000,
        )
        wait_for_go()
        await worker.main()
        counter.answer()
        await worker.close()
        return
    wait_for_go()
    begin_s = time.perf_counter()
    await enqueue(50 if work.how != "one" else 1)
    answer(work.jobs, time.perf_counter() - begin_s)


uvloop.run(main())
