"""What a peer's program has in common with ours: one argument, `ready`, `go`, an answer. Standard library only."""

import json
import sys
import threading
import time


class Work:
    """What to do, as `benchmarks.work.Work` has it."""

    def __init__(self):
        told = json.loads(sys.argv[1])
        self.what, self.how, self.url = told["what"], told["how"], told["url"]
        self.jobs, self.batch, self.concurrency = told["jobs"], told["batch"], told["concurrency"]
        base = {"repo": "git@example.com:shop/api", "sha": "9f8d111d8" * 4, "pad": ""}
        base["pad"] = "x" * max(0, told["payload_bytes"] - len(json.dumps(base, separators=(",", ":"))))
        self.payload = base


def wait_for_go():
    """Say that everything is prepared, and wait until all are."""
    print("ready", flush=True)
    sys.stdin.readline()


def answer(jobs, took_s, latencies_ms=()):
    """Report."""
    print(json.dumps({"jobs": jobs, "took_s": took_s, "latencies_ms": list(latencies_ms)}), flush=True)


class Counter:
    """Counts jobs in whatever thread they run; the time is from the first to the last, so start-up is not in it."""

    def __init__(self, jobs):
        self._jobs, self._lock = jobs, threading.Lock()
        self.done, self.first_s, self.last_s = 0, 0.0, 0.0
        self.waits_ms = []
        self.all_done = threading.Event()
        self.when_done = None

    def note(self, sent_s=None):
        """One more job has run; `sent_s`: when it was enqueued."""
        now_s = time.perf_counter()
        with self._lock:
            if not self.done:
                self.first_s = now_s
            self.done += 1
            self.last_s = now_s
            if sent_s is not None:
                self.waits_ms.append((now_s - sent_s) * 1000)
            over = self.done == self._jobs
        if over:
            self.all_done.set()
            if self.when_done is not None:
                self.when_done()

    def answer(self):
        """Report what was counted."""
        answer(self.done, max(1e-9, self.last_s - self.first_s), self.waits_ms)
