"""taskiq: its list broker pops jobs, so one that runs when its worker dies is lost; its stream broker does not."""

import asyncio
import logging
import sys
import time

import uvloop
from _protocol import Counter, Work, answer, wait_for_go
from taskiq.receiver import Receiver
from taskiq_redis import ListQueueBroker, RedisStreamBroker

logging.disable(logging.CRITICAL)
work = Work()
counter = Counter(work)
broker = ListQueueBroker(work.url) if sys.argv[1] == "list" else RedisStreamBroker(work.url)


@broker.task(task_name="job")
async def job(payload):
    counter.note(payload)


async def enqueue(tasks):
    left = iter(range(work.jobs))

    async def some():
        for _ in left:
            await job.kiq(work.payload)

    await asyncio.gather(*(some() for _ in range(tasks)))


async def main():
    if work.works:
        broker.is_worker_process = True
        await broker.startup()
        if work.what == "drain":
            await enqueue(50)
        over, loop = asyncio.Event(), asyncio.get_running_loop()
        counter.when_done = lambda: loop.call_soon_threadsafe(over.set)
        receiver = Receiver(broker, max_async_tasks=work.concurrency, run_startup=False)
        wait_for_go()
        running = asyncio.create_task(receiver.listen(asyncio.Event()))
        await over.wait()
        counter.finish()
        await running
    await broker.startup()
    wait_for_go()
    begin_s = time.perf_counter()
    if work.what == "knock":
        for payload in work.knocks():
            await job.kiq(payload)
    else:
        await enqueue(work.tasks)
    answer(work.jobs, time.perf_counter() - begin_s)


uvloop.run(main())
