"""huey: a job is popped, so one that runs when its worker dies is lost."""

import logging
import time

from _protocol import Counter, Work, answer, wait_for_go
from huey import RedisHuey

logging.disable(logging.CRITICAL)
work = Work()
huey = RedisHuey("bench", url=work.url, results=False)
counter = Counter(work)


@huey.task()
def job(payload):
    counter.note(payload)


if work.works:
    if work.what == "drain":
        for _ in range(work.jobs):
            job(work.payload)
    consumer = huey.create_consumer(
        workers=1, periodic=False, initial_delay=0.001, backoff=1.0, check_worker_health=False
    )
    wait_for_go()
    consumer.start()
    counter.all_done.wait()
    counter.finish()
wait_for_go()
begin_s = time.perf_counter()
for payload in work.knocks() if work.what == "knock" else (work.payload for _ in range(work.jobs)):
    job(payload)
answer(work.jobs, time.perf_counter() - begin_s)
