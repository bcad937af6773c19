"""What a peer's program has in common with ours: one argument, `ready`, `go`, an answer. Standard library only."""

import json
import mmap
import os
import random
import struct
import sys
import threading
import time

SLOTS_BYTES = 4096
GATE_S = 5.0
OUT = os.dup(1)
"""Where we report, also from a child whose standard output was taken."""


class Work:
    """What to do, as `benchmarks.work.Work` has it."""

    def __init__(self):
        told = json.loads(sys.argv[-1])
        self.what, self.how, self.url = told["what"], told["how"], told["url"]
        self.jobs, self.batch, self.concurrency = told["jobs"], told["batch"], told["concurrency"]
        self.processes, self.slot, self.shared = told["processes"], told["slot"], told["shared"]
        self.cut_s = told["cut_s"]
        base = {"repo": "git@example.com:shop/api", "sha": "9f8d111d8" * 4, "pad": ""}
        base["pad"] = "x" * max(0, told["payload_bytes"] - len(json.dumps(base, separators=(",", ":"))))
        self.payload = base
        self.works = self.what in ("drain", "serve")
        """Whether a worker is to be started."""
        self.tasks = 50 if self.how != "one" else 1
        """How many enqueue at once."""

    def knocks(self):
        """Yield a payload that says when it was sent, now and then, for an idle worker; the first one wakes it up."""
        slots, rng = Slots(self.shared), random.Random(1)
        yield {"sent_s": time.perf_counter()}
        while not slots.total():
            time.sleep(0.005)
        for _ in range(self.jobs):
            time.sleep(rng.uniform(0.002, 0.010))
            yield {"sent_s": time.perf_counter()}


def wait_for_go():
    """Say that everything is prepared, and wait until all are."""
    print("ready", flush=True)
    sys.stdin.readline()


def answer(jobs, took_s, latencies_ms=()):
    """Report."""
    os.write(OUT, json.dumps({"jobs": jobs, "took_s": took_s, "latencies_ms": list(latencies_ms)}).encode() + b"\n")


class Slots:
    """Memory that the programs of a run share: eight bytes a program, the jobs that it has done."""

    def __init__(self, path):
        with open(path, "r+b") as file:
            self._memory = mmap.mmap(file.fileno(), SLOTS_BYTES)

    def write(self, slot, done):
        """Say how many jobs a program has done."""
        struct.pack_into("<q", self._memory, 8 * slot, done)

    def all(self):
        """Return what all programs have done."""
        return struct.unpack_from(f"<{SLOTS_BYTES // 8}q", self._memory)

    def total(self):
        """Return the sum of it."""
        return sum(self.all())


class Counter:
    """Counts jobs in whatever thread they run; the time is from the first to the last, so start-up is not in it.

    With several processes the first job of each waits at a gate until all have one.
    """

    def __init__(self, work):
        self._work, self._lock, self._slots = work, threading.Lock(), Slots(work.shared)
        self._total = work.jobs * work.processes + (work.what == "serve")
        self._answered = False
        self.done, self.first_s, self.last_s = 0, 0.0, 0.0
        self.waits_ms = []
        self.all_done = threading.Event()
        self.when_done = None

    def note(self, payload=None):
        """One more job has run."""
        now_s = time.perf_counter()
        with self._lock:
            if not self.done:
                self._begin()
                now_s = max(now_s, self.first_s)
            self.done += 1
            self.last_s = now_s
            self._slots.write(self._work.slot, self.done)
            if self._work.what == "serve" and self.done > 1:
                self.waits_ms.append((now_s - payload["sent_s"]) * 1000)
            over = self.done == self._total if self._work.processes == 1 else self._slots.total() >= self._total
        if over:
            self._over()

    def _begin(self):
        self._slots.write(self._work.slot, 1)
        until_s = time.perf_counter() + GATE_S
        mine = range(self._work.processes)
        while any(not self._slots.all()[slot] for slot in mine) and time.perf_counter() < until_s:
            time.sleep(0.002)
        self.first_s = time.perf_counter()
        if self._work.cut_s or self._work.processes > 1:
            threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self):
        """Cut what takes too long, and end when the other processes have done the rest."""
        cut_s = self.first_s + (self._work.cut_s or 1e9)
        while not self._answered:
            time.sleep(0.02)
            if time.perf_counter() > cut_s:
                self.last_s = time.perf_counter()
                self.finish()
            if self._slots.total() >= self._total:
                self._over()
                time.sleep(1.0)
                self.finish()

    def _over(self):
        self.all_done.set()
        if self.when_done is not None:
            self.when_done()

    def finish(self):
        """Report what was counted, and end this process: nothing of a worker's shutdown is measured."""
        with self._lock:
            if not self._answered:
                self._answered = True
                jobs = self.done - (self._work.what == "serve")
                answer(jobs, max(1e-9, self.last_s - self.first_s), self.waits_ms)
        os._exit(0)
