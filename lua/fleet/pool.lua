--- The numbers of agents a pool should have, and how many records of agents it has.
---
--- COMMON   now_ms integer 0..9007199254740991 =0 | not used; every verb takes it
--- EACH     pool name
--- BATCH_MAX 50
--- READS    meta pools pool
--- RETURNS  POOL scaled agents
--- FLAGS    no-writes
--- COST     O(1) a pool; 2 calls
local call = redis.call
local replies = {}
for i, e in ipairs(entries) do
  replies[i] = {'POOL', call('HGET', k_pools, e.pool) or '', call('ZCARD', k_pool .. e.pool)}
end
return replies
