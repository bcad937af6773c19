--- How the queue is configured, and whether it hands out jobs.
---
--- COMMON   now_ms integer 0..9007199254740991 =0 | not used; every verb takes it
--- BATCH_MAX 1
--- READS    meta
--- RETURNS  LIMITS record | NO_QUEUE
--- FLAGS    no-writes
--- COST     O(1); 1 call
local record = redis.call('HGETALL', k_meta)
if #record == 0 then
  return {'NO_QUEUE'}
end
return {{'LIMITS', record}}
