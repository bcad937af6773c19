"""Truth-keeping: are the rules that hybridq promises kept, in a keyspace and in what its clients saw?

```python
check.keyspace(redis_client, "default").raise_if_broken()   # everything Redis holds of a namespace
check.fleet(redis_client, "default").raise_if_broken()      # the agents of a namespace
check.history(recorder.events).raise_if_broken()            # everything clients sent and were answered
```

A keyspace shows whether the records agree with each other now; a history shows whether the answers could have
come from a queue that keeps its promises. `INVARIANTS` lists the rules by number.

```
keyspace   _scan (keys) → _queue (counters, bounds) → _read (one job at one instant) → _record, _attempts (rules)
fleet      _fleet (records, indexes and sums)
history    _events (recording) → _story, _shapes (sorted by job) → _leases, _jobs, _turns (rules)
```
"""

from ._events import Event, Recorder, read_events, write_events
from ._fleet import fleet
from ._history import history
from ._keyspace import keyspace
from ._report import INVARIANTS, InvariantBroken, Report, Violation

__all__ = [
    "INVARIANTS",
    "Event",
    "InvariantBroken",
    "Recorder",
    "Report",
    "Violation",
    "fleet",
    "history",
    "keyspace",
    "read_events",
    "write_events",
]
