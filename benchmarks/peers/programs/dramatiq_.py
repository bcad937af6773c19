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
counter = Counter(work)


@dramatiq.actor(max_retries=0)
def job(payload):
    counter.note(payload)


if work.works:
    if work.what == "drain":
        for _ in range(work.jobs):
            job.send(work.payload)
    worker = dramatiq.Worker(broker, worker_threads=8)
    wait_for_go()
    worker.start()
    counter.all_done.wait()
    counter.finish()
wait_for_go()
begin_s = time.perf_counter()
for payload in work.knocks() if work.what == "knock" else (work.payload for _ in range(work.jobs)):
    job.send(payload)
answer(work.jobs, time.perf_counter() - begin_s)
