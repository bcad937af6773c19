--- Begins every verb that changes something in the fleet: the clock, the fleet's own record, gaps in its activity.
--- READS    meta
local call = redis.call
local now = now_ms
if now == 0 then
  local time = call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
local function text_of(n)
  return string.format('%.0f', n)
end
local function int(text)
  return tonumber(text or 0)
end
local now_text = text_of(now)
local meta = {}
do
  local names = {'schema', 'activity_ms', 'resumed_ms', 'events_max', 'recent', 'recent_failed'}
  local values = call('HMGET', k_meta, unpack(names))
  for i, name in ipairs(names) do
    meta[name] = values[i] or nil
  end
end
if meta.schema and meta.schema ~= '1' then
  return {'SCHEMA', meta.schema}
end
-- With one key that never exists the intersection is empty at once, and still every key is looked at for its type.
if #ZSETS > 0 then
  call('ZINTER', #ZSETS + 1, root .. ':none', unpack(ZSETS))
end
local function must_be(kind, key)
  local found = call('TYPE', key).ok
  if found ~= kind and found ~= 'none' then
    error(key .. ' is a ' .. found .. ', not a ' .. kind)
  end
end
for i = 1, #OTHERS, 2 do
  must_be(OTHERS[i], OTHERS[i + 1])
end
local set_meta = {}
local function keep(field, value)
  meta[field] = value
  set_meta[field] = value
end
-- While Redis or everybody who serves agents was away, none could show a sign of life: silence counts from its end.
local GAP_MS = 15000
if meta.schema then
  local gap = now - int(meta.activity_ms)
  if gap >= 1000 or gap < 0 then
    keep('activity_ms', now_text)
  end
  if gap >= GAP_MS or gap <= -1000 then
    keep('resumed_ms', now_text)
  end
end
-- The first verb that has something to keep makes the fleet.
local function found()
  if not meta.schema then
    keep('schema', '1')
    keep('created_ms', now_text)
    keep('activity_ms', now_text)
    keep('events_max', '10000')
  end
end
