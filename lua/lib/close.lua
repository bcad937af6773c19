--- Ends every verb that changes something: counters, wait and run times, events and rings, each written once a call.
--- USES     open
--- NEEDS    events_max
--- WRITES   meta: a fixed set of fields, never trimmed
--- WRITES   stats: a fixed set of counters, never trimmed
--- WRITES   latency: about 500 buckets a minute; folded into latency:all by upkeep, and gone after 2 hours by its own time
--- WRITES   events: meta.events_max entries of up to 16 events, trimmed by XADD
--- WRITES   bell: a channel, keeps nothing
local counts, spans, happened, rings, due_in = {}, {}, {}, {}, nil
local function count(name, n)
  counts[name] = (counts[name] or 0) + n
end
-- Times go to log buckets of base 1.05: bucket 0 is under 1 ms, bucket b ends at 1.05^b ms.
local function span(kind, ms)
  local field = kind .. (ms < 1 and 0 or 1 + math.floor(math.log(ms) / 0.04879016416943205))
  spans[field] = (spans[field] or 0) + 1
end
-- How many ended in this minute, beside the times: a window's failure rate and throughput are read from it.
local function tally(field)
  spans[field] = (spans[field] or 0) + 1
end
local function event(kind, id, status, agent, attempt)
  happened[#happened + 1] = kind
  happened[#happened + 1] = id .. ' ' .. status .. ' ' .. (agent or '-') .. ' ' .. (attempt or 0)
end
local function ring(lane, n)
  rings[lane] = (rings[lane] or 0) + n
end
-- A sleeper that knows a later time must learn of an earlier one.
local function ring_at(due_ms)
  local ms = math.max(0, due_ms - now)
  if not due_in or ms < due_in then
    due_in = ms
  end
end
local function close()
  local fields = {}
  for field, value in pairs(set_meta) do
    fields[#fields + 1] = field
    fields[#fields + 1] = value
  end
  if #fields > 0 then
    call('HSET', k_meta, unpack(fields))
  end
  for name, n in pairs(counts) do
    if n ~= 0 then
      call('HINCRBY', k_stats, name, n)
    end
  end
  -- Minutes come and go, so their type is not checked beforehand; a foreign key there costs figures, nothing else.
  local minute_key, began
  for field, n in pairs(spans) do
    minute_key = minute_key or k_latency .. text_of(math.floor(now / 60000))
    began = redis.pcall('HINCRBY', minute_key, field, n) == n or began
  end
  -- Only a minute's first figures can have made its hash.
  if began then
    call('EXPIRE', minute_key, 7200)
  end
  for first = 1, #happened, 32 do
    call('XADD', k_events, 'MAXLEN', '~', meta.events_max, '*', unpack(happened, first, math.min(first + 31, #happened)))
  end
  for lane, n in pairs(rings) do
    call('PUBLISH', k_bell, lane .. ' ' .. n)
  end
  if due_in then
    call('PUBLISH', k_bell, 'due ' .. text_of(due_in))
  end
end
