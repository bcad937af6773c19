--- Ends every verb that changes something in the fleet: its record, and what happened.
--- USES     open
--- WRITES   meta: a fixed set of fields, never trimmed
--- WRITES   events: meta.events_max entries, trimmed by XADD
local happened, counts = {}, {}
local function count(name, n)
  counts[name] = (counts[name] or 0) + n
end
-- As a queue tells of jobs: the agent, its status then, its pool, and a number for the form's sake.
local function event(kind, agent, status, pool)
  happened[#happened + 1] = kind
  happened[#happened + 1] = agent .. ' ' .. status .. ' ' .. pool .. ' 0'
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
    call('HINCRBY', k_meta, name, n)
  end
  for first = 1, #happened, 32 do
    call('XADD', k_events, 'MAXLEN', '~', meta.events_max, '*', unpack(happened, first, math.min(first + 31, #happened)))
  end
end
