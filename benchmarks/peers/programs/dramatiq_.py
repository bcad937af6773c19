"""dramatiq: messages are requeued when a worker's heartbeat stops; 8 threads, its default."""

import logging
import time

import dramatiq
from _protocol import Counter, Work, answer, wait_for_go
from dramatiq.brokers.redis import RedisBroker

logging.disable(logging.CRITICAL)
work = Work()
broker = RedisBroker(url=work.url)
dramatiq.set_broker(broker)
counter = Counter(work.jobs)


@dramatiq.actor(max_retries=0)
def job(payload):
    counter.note()


if work.what == "drain":
    for _ in range(work.jobs):
        job.send(work.payload)
    worker = dramatiq.Worker(broker, worker_threads=8)
    wait_for_go()
    worker.start()
    counter.all_done.wait()
    counter.answer()
    worker.stop()
else:
    wait_for_go()
    begin_s = time.perf_counter()
    for _ in range(work.jobs):
        job.send(work.payload)
    answer(work.jobs, time.perf_counter() - begin_s)
