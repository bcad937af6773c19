--- The lists of a namespace's keys: what ended long ago leaves them here, a few each time a new one is made.
--- USES     open
local TRIM_MAX = 20
local function forget_ended(index, ends, records, before_ms)
  local ended = call('ZRANGEBYSCORE', ends, '-inf', text_of(before_ms), 'LIMIT', 0, TRIM_MAX)
  for _, id in ipairs(ended) do
    call('DEL', records .. id)
    call('ZREM', index, id)
    call('ZREM', ends, id)
  end
  return #ended
end
