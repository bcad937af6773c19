--- What agents hold of this queue, how their sessions stand with it, and how their runs ended.
---
--- COMMON   now_ms integer 0..9007199254740991 =0 | not used; every verb takes it
---          leases integer 0..50 | how many leases of each to look at for the shortest
--- EACH     agent holder
--- BATCH_MAX 50
--- READS    meta agent held job
--- RETURNS  AGENT held shortest_lease_ms first_end_ms generation capacity drain completed failed recent | NO_QUEUE
--- FLAGS    no-writes
--- COST     O(leases) an agent; 3 calls and 1 a lease looked at
local call = redis.call
if call('EXISTS', k_meta) == 0 then
  return {'NO_QUEUE'}
end
local replies = {}
for i, e in ipairs(entries) do
  local kept = call('HMGET', k_agent .. e.agent, 'generation', 'capacity', 'drain', 'completed', 'failed', 'recent')
  local held, shortest, first = call('ZCARD', k_held .. e.agent), nil, nil
  -- Those that end first: a short lease is likely to be among them.
  local soon = leases > 0 and held > 0 and call('ZRANGE', k_held .. e.agent, 0, leases - 1, 'WITHSCORES') or {}
  for at = 1, #soon, 2 do
    local lease_ms = tonumber(call('HGET', k_job .. soon[at], 'lease_ms') or nil)
    if lease_ms and (not shortest or lease_ms < shortest) then
      shortest = lease_ms
    end
    first = first or soon[at + 1]
  end
  replies[i] = {'AGENT', held, string.format('%.0f', shortest or 0), first or '0', kept[1] or '0', kept[2] or '0',
    kept[3] or '0', kept[4] or '0', kept[5] or '0', kept[6] or ''}
end
return replies
