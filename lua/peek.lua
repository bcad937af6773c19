--- Tell whether anything calls for a claim or for upkeep. Who waits asks it now and then, since it costs next to nothing.
---
--- COMMON   now_ms integer 0..9007199254740991 =0 | 0 means the server's clock
---          lanes text 3..8192 | ids of the lanes whose requirement the agent meets, joined by commas
--- BATCH_MAX 1
--- READS    meta leased ready scheduled
--- RETURNS  QUIET next_due_ms | BUSY | NO_QUEUE
--- FLAGS    no-writes
--- COST     O(lanes); 3 calls when nothing waits, 8 at most
local call = redis.call
local meta = call('HMGET', k_meta, 'schema', 'paused')
if not meta[1] then
  return {'NO_QUEUE'}
end
-- While leases are out a look has to leave its mark (see next_due in lib/upkeep), so that one that notes it is called for.
local busy = {k_leased}
if meta[2] ~= '1' then
  for lane in string.gmatch(lanes, '[^,]+') do
    busy[#busy + 1] = k_ready .. lane
  end
end
if call('EXISTS', unpack(busy)) > 0 then
  return {{'BUSY'}}
end
local waits = {}
for i, priority in ipairs({'CRITICAL', 'HIGH', 'NORMAL', 'LOW'}) do
  waits[i] = k_scheduled .. priority
end
if call('EXISTS', unpack(waits)) == 0 then
  return {{'QUIET', -1}}
end
local now, first = now_ms, nil
if now == 0 then
  local time = call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
for _, key in ipairs(waits) do
  local head = call('ZRANGE', key, 0, 0, 'WITHSCORES')
  if head[1] and (not first or tonumber(head[2]) < first) then
    first = tonumber(head[2])
  end
end
if first <= now then
  return {{'BUSY'}}
end
return {{'QUIET', string.format('%.0f', math.ceil(first - now))}}
