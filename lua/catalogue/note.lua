--- Note that a queue is there, before it is: so nobody has to search the keyspace for the queues of a namespace.
---
--- COMMON   now_ms integer 0..9007199254740991 =0 | 0 means the server's clock
--- EACH     queue name
--- BATCH_MAX 50
--- WRITES   meta: a fixed set of fields, never trimmed
--- WRITES   queues: one entry a queue, at most 10,000
--- WRITES   bell: a channel, keeps nothing
--- RETURNS  NOTED | FULL limit
--- COST     O(log n) a queue; 4 calls and 2 a call
local QUEUES_MAX = 10000
local call = redis.call
local now = now_ms
if now == 0 then
  local time = call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
local at = string.format('%.0f', now)
local replies, noted = {}, call('ZCARD', k_queues)
for i, e in ipairs(entries) do
  if call('ZSCORE', k_queues, e.queue) then
    replies[i] = {'NOTED'}
  elseif noted >= QUEUES_MAX then
    replies[i] = {'FULL', QUEUES_MAX}
  else
    call('HSET', k_meta, 'schema', '1')
    call('ZADD', k_queues, at, e.queue)
    call('PUBLISH', k_bell, 'changed')
    noted = noted + 1
    replies[i] = {'NOTED'}
  end
end
return replies
