--- Begins every verb that changes something: the clock, the queue's own record, and what the verb will write at its end.
--- READS    meta
--- NEEDS    schema activity_ms
local call = redis.call
local now = now_ms
if now == 0 then
  local time = call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
-- `%d` prints a whole number under 2^53 exactly, as `%.0f` does, at a third of the instructions; `..` would not.
-- Many numbers of a call are the same, and looking one up costs less than printing it.
local printed = {}
local function text_of(n)
  local text = printed[n]
  if not text then
    text = string.format('%d', n)
    printed[n] = text
  end
  return text
end
local now_text = text_of(now)
-- The queue's own record: the fields that headers name are read at once, `need` reads others.
local meta = {}
local function need(...)
  local values = call('HMGET', k_meta, ...)
  for i, field in ipairs({...}) do
    meta[field] = meta[field] or values[i] or nil
  end
end
need(unpack(NEEDS))
if not meta.schema then
  return {'NO_QUEUE'}
end
if meta.schema ~= '1' then
  return {'SCHEMA', meta.schema}
end
-- A foreign write must stop the verb before its first write, not tear it in the middle: Redis does not roll back. With
-- one key that never exists the intersection is empty at once, and still every key is looked at for its type.
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
-- Where the previous writes went: a gap means that Redis was away, or everybody was cut off. upkeep grants grace by it.
local set_meta = {}
local function keep(field, value)
  meta[field] = value
  set_meta[field] = value
end
do
  local gap = now - tonumber(meta.activity_ms)
  if gap >= 100 or gap < 0 then
    keep('activity_ms', now_text)
  end
  if gap >= 500 then
    need('gap_ms', 'gap_at_ms')
    local last_gap, last_at = tonumber(meta.gap_ms or 0), tonumber(meta.gap_at_ms or 0)
    -- A short idle spell must not take the grace of a long outage away: that one counts for twice its length.
    if gap >= last_gap or now > last_at + 2 * last_gap then
      keep('gap_ms', text_of(gap))
      keep('gap_at_ms', now_text)
    end
  end
end
