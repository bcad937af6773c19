"""beanstalkd through greenstalk: a job is reserved, and put again when its time to run is over."""

import json
import time
from pathlib import Path
from urllib.parse import urlsplit

import greenstalk
from _protocol import Counter, Work, answer, wait_for_go

work = Work()
parts = urlsplit(work.url)
# A tube of the run's own: the server is not emptied between runs.
tube = Path(work.shared).parent.name
client = greenstalk.Client((parts.hostname, parts.port), use=tube, watch=tube)

if work.works:
    counter = Counter(work)
    if work.what == "drain":
        for _ in range(work.jobs):
            client.put(json.dumps(work.payload))
    wait_for_go()
    while not counter.all_done.is_set():
        try:
            job = client.reserve(timeout=1)
        except greenstalk.TimedOutError:
            continue
        counter.note(json.loads(job.body))
        client.delete(job)
    counter.finish()
wait_for_go()
begin_s = time.perf_counter()
for payload in work.knocks() if work.what == "knock" else (work.payload for _ in range(work.jobs)):
    client.put(json.dumps(payload))
answer(work.jobs, time.perf_counter() - begin_s)
