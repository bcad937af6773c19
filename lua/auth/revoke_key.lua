--- Revoke an API key or a registration key: it is refused from the next call on. The record stays for a day, so that
--- a repeated request to make it finds that it was made.
---
--- COMMON   now_ms integer 0..9007199254740991 =0 | 0 means the server's clock
--- EACH     what key/registration
---          namespace name
---          id name
--- BATCH_MAX 50
--- USES     open run
--- MAY_WRITE key: 10,000 a namespace, and revoked ones for a day by their own time to live
--- MAY_WRITE keys: one entry a key of the namespace
--- MAY_WRITE key_ends: one entry a key that has an end
--- MAY_WRITE registration: 1,000 a namespace, by its own time to live
--- MAY_WRITE registrations: one entry a key
--- MAY_WRITE registration_ends: as registrations
--- RETURNS  REVOKED | NOT_FOUND
--- FLAGS    allow-oom
--- COST     O(log n); 7 calls
local KEPT_MS = 86400000
local function revoke_key(e)
  local records, index, ends = k_key, k_keys .. e.namespace, k_key_ends .. e.namespace
  if e.what == 'registration' then
    records, index, ends = k_registration, k_registrations .. e.namespace, k_registration_ends .. e.namespace
  end
  local found = fields_of(call('HGETALL', records .. e.id))
  if found.namespace ~= e.namespace then
    return {'NOT_FOUND'}
  end
  call('ZCARD', index)
  call('ZCARD', ends)
  if not found.revoked_ms then
    call('HSET', records .. e.id, 'revoked_ms', now_text)
    call('PEXPIRE', records .. e.id, KEPT_MS)
    call('ZREM', index, e.id)
    call('ZREM', ends, e.id)
  end
  return {'REVOKED'}
end
return run(revoke_key)
