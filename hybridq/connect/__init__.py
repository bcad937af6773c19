"""The one seam between a Redis URL and redis-py's own clients, sync and async.

redis-py's defaults suit a cache. A queue needs other ones, and they are all set here: no blind retries
(a lost reply would run a script twice), a pool that waits instead of raising, timeouts for commands and none
for the bell, which waits for messages by design. Nothing above this package knows a redis-py option.

| scheme                              | client                                             |
|-------------------------------------|----------------------------------------------------|
| `redis://` `rediss://` `unix://`    | one server                                         |
| `redis+sentinel://` `rediss+…`      | the primary that the sentinels name                |
| `redis+cluster://` `rediss+…`       | a cluster; MOVED and ASK are followed, as a server |
|                                     | that sends them has executed nothing               |
"""

from ._connector import AsyncRedis, Connector, Connects, SyncRedis

__all__ = ["AsyncRedis", "Connector", "Connects", "SyncRedis"]
