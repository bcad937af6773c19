"""Celery, solo pool: a job is acknowledged before it runs, its default."""

import logging
import time

from _protocol import Counter, Work, answer, wait_for_go
from celery import Celery

logging.disable(logging.CRITICAL)
work = Work()
counter = Counter(work)
app = Celery("bench", broker=work.url)
app.conf.update(
    task_ignore_result=True,
    worker_hijack_root_logger=False,
    broker_connection_retry_on_startup=True,
    worker_prefetch_multiplier=50,
)


@app.task(name="job")
def job(payload):
    counter.note(payload)


if work.works:
    if work.what == "drain":
        for _ in range(work.jobs):
            job.delay(work.payload)
    counter.when_done = counter.finish
    wait_for_go()
    app.Worker(pool="solo", quiet=True, loglevel="CRITICAL", without_gossip=True, without_mingle=True).start()
else:
    app.pool.acquire(block=True).release()
    wait_for_go()
    begin_s = time.perf_counter()
    for payload in work.knocks() if work.what == "knock" else (work.payload for _ in range(work.jobs)):
        job.delay(payload)
    answer(work.jobs, time.perf_counter() - begin_s)
