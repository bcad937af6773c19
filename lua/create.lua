--- Make a queue, or find it made: no other verb writes to a queue that was not created.
---
--- COMMON   now_ms integer 0..9007199254740991 =0 | 0 means the server's clock
--- WRITES   meta: a fixed set of fields, never trimmed
--- RETURNS  CREATED | EXISTS
--- COST     O(1); 2 calls
if redis.call('EXISTS', k_meta) == 1 then
  return {{'EXISTS'}}
end
local now = now_ms
if now == 0 then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
local at = string.format('%.0f', now)
redis.call('HSET', k_meta, 'schema', '1', 'policy', 'fifo', 'created_ms', at, 'activity_ms', at, 'upkeep_ms', '0',
  'fence', '0', 'order', '0', 'seq', '0', 'lanes_version', '0', 'lease_ms', '30000', 'max_queued', '0',
  'max_dead', '100000', 'retention_ms', '86400000', 'retention_count', '10000', 'tombstone_ms', '900000',
  'events_max', '10000', 'log_bytes_max', '8388608', 'logs_bytes_max', '1073741824', 'logs_bytes', '0')
return {{'CREATED'}}
