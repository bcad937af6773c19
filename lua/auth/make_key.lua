--- Make an API key. The same id again is answered with what was made the first time, and changes nothing.
---
--- COMMON   now_ms integer 0..9007199254740991 =0 | 0 means the server's clock
--- EACH     id name
---          hash text 64..64 | SHA-256 of the key's text
---          namespace name
---          name text 1..64
---          grant text 2..16384 | JSON: scopes, pools, services
---          digest text 1..64 | of everything the caller said
---          created_by text 0..128
---          expires_ms integer 0..9007199254740991 | 0: see lasts_ms
---          lasts_ms integer 0..3162240000000 | from now; 0: no end
---          require_signature integer 0..1
---          public_key text 0..64
--- BATCH_MAX 20
--- USES     open run index
--- WRITES   meta: a fixed set of fields, never trimmed
--- MAY_WRITE key: 10,000 a namespace, trimmed 30 days after their end by make_key
--- MAY_WRITE keys: one entry a key of the namespace
--- MAY_WRITE key_ends: one entry a key that has an end
--- RETURNS  MADE record | EXISTS record | CONFLICT | FULL limit | PAST
--- COST     O(log n); 7 calls, and 60 to trim
local KEYS_MAX = 10000
local KEPT_MS = 30 * 86400000
local function make_key(e)
  local record = k_key .. e.id
  local index, ends = k_keys .. e.namespace, k_key_ends .. e.namespace
  local found = fields_of(call('HGETALL', record))
  if found.hash then
    local same = found.digest == e.digest and found.namespace == e.namespace
    return same and {'EXISTS', call('HGETALL', record)} or {'CONFLICT'}
  end
  local expires = e.expires_ms
  if expires == 0 and e.lasts_ms > 0 then
    expires = now + e.lasts_ms
  end
  if expires > 0 and expires <= now then
    return {'PAST'}
  end
  local trimmed = forget_ended(index, ends, k_key, now - KEPT_MS)
  if trimmed == 0 and call('ZCARD', index) >= KEYS_MAX then
    return {'FULL', KEYS_MAX}
  end

  local seq = call('HINCRBY', k_meta, 'seq', 1)
  call('HSET', record, 'hash', e.hash, 'namespace', e.namespace, 'name', e.name, 'grant', e.grant, 'digest', e.digest,
    'created_by', e.created_by, 'created_ms', now_text, 'seq', text_of(seq))
  call('ZADD', index, text_of(seq), e.id)
  if expires > 0 then
    call('HSET', record, 'expires_ms', text_of(expires))
    call('ZADD', ends, text_of(expires), e.id)
  end
  if e.public_key ~= '' then
    call('HSET', record, 'public_key', e.public_key)
  end
  if e.require_signature == 1 then
    call('HSET', record, 'require_signature', '1')
  end
  return {'MADE', call('HGETALL', record)}
end
return run(make_key)
