"""WakaQ: a job is popped, so one that runs when its worker dies is lost; the worker forks a child for its jobs."""

import logging
import time
from urllib.parse import urlsplit

from _protocol import Counter, Work, answer, wait_for_go
from wakaq import WakaQ
from wakaq.worker import Worker

work = Work()
counter = Counter(work)
parts = urlsplit(work.url)
wakaq = WakaQ(
    queues=["bench"],
    host=parts.hostname,
    port=parts.port,
    concurrency=1,
    worker_log_level=logging.CRITICAL,
)


@wakaq.task(queue="bench")
def job(payload):
    counter.note(payload)


if work.works:
    if work.what == "drain":
        for _ in range(work.jobs):
            job.delay(work.payload)
    counter.when_done = counter.finish
    wait_for_go()
    Worker(wakaq).start()
else:
    wait_for_go()
    begin_s = time.perf_counter()
    for payload in work.knocks() if work.what == "knock" else (work.payload for _ in range(work.jobs)):
        job.delay(payload)
    answer(work.jobs, time.perf_counter() - begin_s)
