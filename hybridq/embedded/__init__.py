"""A private server for a data directory, shared by every process that uses the directory.

```
<data directory>/
  engine.json          which engine wrote the data, and the highest version that did
  appendonlydir/       the data: an append-only file, synced every second
  server.log           what the server says; server.old.log is the run before
  run/                 0700; may be removed while no server runs
    lock               held while a process decides: start, attach, leave, stop
    server.lock        held by the server as long as it lives, so that no process id is ever trusted
    users/             one file for each attached process, locked as long as that process lives
    socket             where the server listens: run/s, or a short path where that would be too long
    pid                the server's process id
```

Locks are `flock`s, which the kernel drops with the process: nothing needs cleaning up after a SIGKILL.
"""

from ._folder import default_data_dir
from ._server import EmbeddedServer, InMemory, Status, down, start_or_attach, status

__all__ = [
    "EmbeddedServer",
    "InMemory",
    "Status",
    "default_data_dir",
    "down",
    "start_or_attach",
    "status",
]
