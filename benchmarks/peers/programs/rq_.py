"""rq: a job is in a registry while it runs, so a worker that dies loses none; SimpleWorker forks for none."""

import time

import redis
from _protocol import Counter, Work, answer, wait_for_go
from rq import Queue, SimpleWorker

counter = None


def job(payload):
    counter.note(payload)


def main():
    global counter
    work = Work()
    client = redis.Redis.from_url(work.url)
    queue = Queue("bench", connection=client)

    def bulk():
        for first in range(0, work.jobs, 500):
            count = min(500, work.jobs - first)
            queue.enqueue_many([Queue.prepare_data(job, (work.payload,), result_ttl=0) for _ in range(count)])

    if work.works:
        if work.what == "drain":
            bulk()
        counter = Counter(work)
        counter.when_done = counter.finish
        worker = SimpleWorker([queue], connection=client)
        worker.log.setLevel("ERROR")
        wait_for_go()
        worker.work(logging_level="ERROR")
    wait_for_go()
    begin_s = time.perf_counter()
    if work.how == "bulk":
        bulk()
    else:
        for payload in work.knocks() if work.what == "knock" else (work.payload for _ in range(work.jobs)):
            queue.enqueue(job, payload, result_ttl=0)
    answer(work.jobs, time.perf_counter() - begin_s)


if __name__ == "__main__":
    # By its name, as rq imports what it runs.
    import rq_

    rq_.main()
