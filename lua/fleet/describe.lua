--- Agents as they are kept, and what their status is derived from beside that.
---
--- COMMON   now_ms integer 0..9007199254740991 =0 | 0 means the server's clock
--- EACH     agent name
--- BATCH_MAX 50
--- READS    meta agent
--- RETURNS  AGENT record now_ms resumed_ms recent recent_failed | NOT_REGISTERED
--- FLAGS    no-writes
--- COST     O(1) an agent; 1 call
local call = redis.call
local now = now_ms
if now == 0 then
  local time = call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
local meta = call('HMGET', k_meta, 'resumed_ms', 'recent', 'recent_failed')
local replies = {}
for i, e in ipairs(entries) do
  local flat = call('HGETALL', k_agent .. e.agent)
  if #flat == 0 then
    replies[i] = {'NOT_REGISTERED'}
  else
    replies[i] = {'AGENT', flat, string.format('%.0f', now), meta[1] or '0', meta[2] or '0', meta[3] or '0'}
  end
end
return replies
