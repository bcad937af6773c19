--- One page of agents by name, of the whole fleet or of one pool, as they are kept.
---
--- COMMON   now_ms integer 0..9007199254740991 =0 | 0 means the server's clock
---          within text 0..64 | a pool; empty: all
---          after text 0..64 | the last name of the page before; empty for the first page
---          limit integer 1..300
--- BATCH_MAX 1
--- READS    meta agent agents pool
--- RETURNS  PAGE names records next now_ms resumed_ms recent recent_failed
--- FLAGS    no-writes
--- COST     O(log n + limit); 2 calls and 1 an agent
local call = redis.call
local now = now_ms
if now == 0 then
  local time = call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
local meta = call('HMGET', k_meta, 'resumed_ms', 'recent', 'recent_failed')
local index = within == '' and k_agents or k_pool .. within
local names = call('ZRANGEBYLEX', index, after == '' and '-' or '(' .. after, '+', 'LIMIT', 0, limit)
local records = {}
for i, name in ipairs(names) do
  records[i] = call('HGETALL', k_agent .. name)
end
return {{'PAGE', names, records, #names == limit and names[#names] or '', string.format('%.0f', now), meta[1] or '0',
  meta[2] or '0', meta[3] or '0'}}
