--- Make the access records of this server unless they are there. What they begin with is the key that cursors are
--- signed by: 32 bytes, drawn by whoever comes first.
---
--- COMMON   now_ms integer 0..9007199254740991 =0 | 0 means the server's clock
--- EACH     signing_key text 64..64 | in hex
--- BATCH_MAX 1
--- WRITES   meta: a fixed set of fields, never trimmed
--- RETURNS  ESTABLISHED signing_key
--- COST     O(1); 2 calls, 3 the first time
local call = redis.call
local schema = call('HGET', k_meta, 'schema')
if schema and schema ~= '1' then
  return {'SCHEMA', schema}
end
local replies = {}
for i, e in ipairs(entries) do
  local key = call('HGET', k_meta, 'signing_key')
  if not schema or not key then
    key = key or e.signing_key
    call('HSET', k_meta, 'schema', '1', 'signing_key', key)
  end
  replies[i] = {'ESTABLISHED', key}
end
return replies
