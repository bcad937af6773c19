--- Remember a value, and tell whether it is the first time: for ids of proofs and nonces of signatures.
---
--- COMMON   now_ms integer 0..9007199254740991 =0 | 0 means the server's clock
--- EACH     what name
---          hash name
---          mark text 1..64 | of this call: sent again, it is still the first time
---          ttl_ms integer 1..2592000000
--- BATCH_MAX 100
--- USES     open run
--- MAY_WRITE once: one a value, until it could not be used any more, by its own time to live
--- RETURNS  FIRST | SEEN
--- FLAGS    allow-oom
--- COST     O(1); 3 calls
local function once(e)
  local key = k_once .. e.what .. ':' .. e.hash
  local mark = call('GET', key)
  if mark then
    return {mark == e.mark and 'FIRST' or 'SEEN'}
  end
  call('SET', key, e.mark, 'PX', e.ttl_ms)
  return {'FIRST'}
end
return run(once)
