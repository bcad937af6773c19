--- Gauges, totals and the buckets of a window of minutes.
---
--- COMMON   now_ms integer 0..9007199254740991 =0 | 0 means the server's clock
---          minutes integer 0..60 | the window; 0 means since the beginning
--- BATCH_MAX 1
--- READS    meta ready scheduled blocked leased dead finished stats latency lanes job
--- RETURNS  STATS gauges totals buckets | NO_QUEUE
--- FLAGS    no-writes
--- COST     O(minutes · buckets); about 20 calls and one a minute
local call = redis.call
local meta = call('HMGET', k_meta, 'schema', 'paused', 'folded_minute', 'created_ms')
if not meta[1] then
  return {'NO_QUEUE'}
end
local now = now_ms
if now == 0 then
  local time = call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
local lanes = call('HKEYS', k_lanes)
lanes[#lanes + 1] = 'any'
local by_band, queued, oldest = {0, 0, 0, 0}, 0, 0
for _, lane in ipairs(lanes) do
  for band = 1, 4 do
    local low, high = (band - 1) * 17592186044416, band * 17592186044416
    local n = call('ZCOUNT', k_ready .. lane, string.format('%.0f', low), string.format('(%.0f', high))
    by_band[band] = by_band[band] + n
    queued = queued + n
    local head = n > 0 and call('ZRANGEBYSCORE', k_ready .. lane, string.format('%.0f', low), '+inf', 'LIMIT', 0, 1)
    if head then
      local since = call('HMGET', k_job .. head[1], 'ready_ms', 'enqueued_ms')
      oldest = math.max(oldest, now - (since[1] or since[2] or now))
    end
  end
end
local scheduled = 0
for _, priority in ipairs({'CRITICAL', 'HIGH', 'NORMAL', 'LOW'}) do
  scheduled = scheduled + call('ZCARD', k_scheduled .. priority)
end
local gauges = {'queued', queued, 'scheduled', scheduled, 'blocked', call('ZCARD', k_blocked), 'leased',
  call('ZCARD', k_leased), 'dead_lettered', call('ZCARD', k_dead), 'finished', call('ZCARD', k_finished), 'CRITICAL',
  by_band[1], 'HIGH', by_band[2], 'NORMAL', by_band[3], 'LOW', by_band[4], 'oldest_queued_ms',
  string.format('%.0f', oldest), 'paused', meta[2] == '1' and 1 or 0, 'age_ms', string.format('%.0f', math.max(0, now - meta[4]))}
local minute, buckets = math.floor(now / 60000), {}
if minutes == 0 then
  buckets[1] = call('HGETALL', k_latency .. 'all')
end
-- Since the beginning: what was folded, and the minutes that were not yet, which are as many at the most.
local first = minutes > 0 and minute - minutes + 1 or math.max(minute - 120, (meta[3] or minute - 120) + 1)
for m = first, minute do
  buckets[#buckets + 1] = call('HGETALL', k_latency .. string.format('%.0f', m))
end
return {{'STATS', gauges, call('HGETALL', k_stats), buckets}}
