--- Give an agent its next agent token. The family lives on from here: an agent that is seen needs no other renewal.
---
--- COMMON   now_ms integer 0..9007199254740991 =0 | 0 means the server's clock
--- EACH     family_id name
---          token_id name
---          token_hash text 64..64
---          token_ms integer 1..3600000
---          renewal_ms integer 1..2592000000
--- BATCH_MAX 100
--- USES     open run family agent_token
--- RETURNS  ISSUED token_expires_ms | UNKNOWN | EXPIRED | REVOKED
--- FLAGS    allow-oom
--- COST     O(1); 7 calls
local function issue(e)
  local record = k_renewal .. e.family_id
  local family = fields_of(call('HGETALL', record))
  if not family.current then
    return {'UNKNOWN'}
  end
  if family.revoked_ms then
    return {'REVOKED'}
  end
  if now >= tonumber(family.expires_ms) then
    return {'EXPIRED'}
  end
  local name = k_family_of .. family.namespace .. '/' .. family.agent_id
  call('GET', name)
  call('HGET', k_agent_token .. e.token_id, 'hash')

  call('HSET', record, 'expires_ms', text_of(now + e.renewal_ms))
  call('PEXPIRE', record, e.renewal_ms)
  call('SET', name, e.family_id, 'PX', e.renewal_ms)
  return {'ISSUED', write_token(e.token_id, e.token_hash, e.family_id, e.token_ms)}
end
return run(issue)
