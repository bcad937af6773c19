--- Change the limits of a queue.
---
--- COMMON   now_ms integer 0..9007199254740991 =0 | 0 means the server's clock
--- EACH     field lease_ms/max_queued/max_dead/retention_ms/retention_count/tombstone_ms/events_max/log_bytes_max/logs_bytes_max
---          value integer 0..9007199254740991
--- BATCH_MAX 10
--- USES     announce run
--- RETURNS  SET value
--- FLAGS    allow-oom
--- COST     O(1); 2 calls
local function configure(e)
  keep(e.field, text_of(e.value))
  keep('upkeep_ms', '0')
  return {'SET', meta[e.field]}
end
announce()
return run(configure)
