--- Tell whether queues are there, without making them.
---
--- COMMON   now_ms integer 0..9007199254740991 =0 | not used; every verb takes it
--- EACH     queue name
--- BATCH_MAX 50
--- READS    meta queues
--- RETURNS  THERE | UNKNOWN
--- FLAGS    no-writes
--- COST     O(1) a queue; 1 call
local replies = {}
for i, e in ipairs(entries) do
  replies[i] = {redis.call('ZSCORE', k_queues, e.queue) and 'THERE' or 'UNKNOWN'}
end
return replies
