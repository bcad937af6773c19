"""rq: a job is in a registry while it runs, so a worker that dies loses none; SimpleWorker forks for none."""

import time

import redis
from _protocol import Counter, Work, answer, wait_for_go
from rq import Queue, SimpleWorker

counter = None


def job(payload):
    counter.note()


def main():
    global counter
    work = Work()
    client = redis.Redis.from_url(work.url)
    queue = Queue("bench", connection=client)
    made = [Queue.prepare_data(job, (work.payload,), result_ttl=0) for _ in range(work.jobs)]
    steps = range(0, work.jobs, 500)
    if work.what == "drain":
        for first in steps:
            queue.enqueue_many(made[first : first + 500])
        counter = Counter(work.jobs)
        worker = SimpleWorker([queue], connection=client)
        worker.log.setLevel("ERROR")
        wait_for_go()
        worker.work(burst=True, logging_level="ERROR")
        counter.answer()
        return
    wait_for_go()
    begin_s = time.perf_counter()
    if work.how == "bulk":
        for first in steps:
            queue.enqueue_many(made[first : first + 500])
    else:
        for _ in range(work.jobs):
            queue.enqueue(job, work.payload, result_ttl=0)
    answer(work.jobs, time.perf_counter() - begin_s)


if __name__ == "__main__":
    # By its name, as rq imports what it runs.
    import rq_

    rq_.main()
