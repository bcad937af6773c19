"""TaskTiger: jobs move between sorted sets by Lua; SyncExecutor forks for none."""

import logging
import time

import redis
from _protocol import Counter, Work, answer, wait_for_go
from tasktiger import TaskTiger, Worker
from tasktiger.executor import SyncExecutor

counter = None


def job(payload):
    counter.note(payload)


def main():
    global counter
    logging.disable(logging.CRITICAL)
    work = Work()
    tiger = TaskTiger(redis.Redis.from_url(work.url, decode_responses=True), setup_structlog=True)
    if work.works:
        if work.what == "drain":
            for _ in range(work.jobs):
                tiger.delay(job, args=(work.payload,))
        counter = Counter(work)
        counter.when_done = counter.finish
        worker = Worker(tiger, executor_class=SyncExecutor)
        wait_for_go()
        worker.run()
    wait_for_go()
    begin_s = time.perf_counter()
    for payload in work.knocks() if work.what == "knock" else (work.payload for _ in range(work.jobs)):
        tiger.delay(job, args=(payload,))
    answer(work.jobs, time.perf_counter() - begin_s)


if __name__ == "__main__":
    import tasktiger_

    tasktiger_.main()
