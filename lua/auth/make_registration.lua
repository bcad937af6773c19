--- Make a registration key: what agents of one pool may register with, so and so many times, for a while.
---
--- COMMON   now_ms integer 0..9007199254740991 =0 | 0 means the server's clock
--- EACH     id name
---          hash text 64..64 | SHA-256 of the key's text
---          namespace name
---          name text 1..64
---          pool name
---          grant text 2..16384 | JSON: scopes, labels
---          digest text 1..64 | of everything the caller said
---          created_by text 0..128
---          uses integer 1..1000
---          expires_ms integer 0..9007199254740991 | 0: see lasts_ms
---          lasts_ms integer 1..2592000000 | from now
--- BATCH_MAX 20
--- USES     open run index
--- WRITES   meta: a fixed set of fields, never trimmed
--- MAY_WRITE registration: 1,000 a namespace, by its own time to live
--- MAY_WRITE registrations: one entry a key, trimmed by make_registration
--- MAY_WRITE registration_ends: as registrations
--- RETURNS  MADE record | EXISTS record | CONFLICT | FULL limit | PAST | TOO_FAR most_ms
--- COST     O(log n); 8 calls, and 60 to trim
local REGISTRATIONS_MAX = 1000
local LIFE_MS_MAX = 30 * 86400000
local function make_registration(e)
  local record = k_registration .. e.id
  local index, ends = k_registrations .. e.namespace, k_registration_ends .. e.namespace
  local found = fields_of(call('HGETALL', record))
  if found.hash then
    local same = found.digest == e.digest and found.namespace == e.namespace
    return same and {'EXISTS', call('HGETALL', record)} or {'CONFLICT'}
  end
  local expires = e.expires_ms > 0 and e.expires_ms or now + e.lasts_ms
  if expires <= now then
    return {'PAST'}
  end
  if expires > now + LIFE_MS_MAX then
    return {'TOO_FAR', text_of(LIFE_MS_MAX)}
  end
  local trimmed = forget_ended(index, ends, k_registration, now)
  if trimmed == 0 and call('ZCARD', index) >= REGISTRATIONS_MAX then
    return {'FULL', REGISTRATIONS_MAX}
  end

  local seq = call('HINCRBY', k_meta, 'seq', 1)
  call('HSET', record, 'hash', e.hash, 'namespace', e.namespace, 'name', e.name, 'pool', e.pool, 'grant', e.grant,
    'digest', e.digest, 'created_by', e.created_by, 'created_ms', now_text, 'seq', text_of(seq),
    'uses', text_of(e.uses), 'spent', '0', 'expires_ms', text_of(expires))
  call('PEXPIRE', record, text_of(expires - now))
  call('ZADD', index, text_of(seq), e.id)
  call('ZADD', ends, text_of(expires), e.id)
  return {'MADE', call('HGETALL', record)}
end
return run(make_registration)
