--- Begins every script of the access records: the clock, and whether the records are there and of our version.
--- READS    meta
local call = redis.call
local now = now_ms
if now == 0 then
  local time = call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end
-- `%.0f` prints a whole number under 2^53 exactly; `..` would not.
local function text_of(n)
  return string.format('%.0f', n)
end
local now_text = text_of(now)
local schema = call('HGET', k_meta, 'schema')
if not schema then
  return {'NO_QUEUE'}
end
if schema ~= '1' then
  return {'SCHEMA', schema}
end
-- A flat list of fields and values as a table.
local function fields_of(flat)
  local fields = {}
  for i = 1, #flat, 2 do
    fields[flat[i]] = flat[i + 1]
  end
  return fields
end
