--- Take a renewal token and give the next one, with an agent token. The current token is accepted, and once more as the
--- previous one, in case the reply was lost. What was used up before and comes again ends the family for everybody.
---
--- COMMON   now_ms integer 0..9007199254740991 =0 | 0 means the server's clock
--- EACH     family_id name
---          hash text 64..64 | of the text that was presented
---          next_hash text 64..64 | of the renewal token to give
---          token_id name
---          token_hash text 64..64 | of the agent token to give
---          agent_id name | who says to be renewed: bound to agent and boot
---          boot_id text 1..128
---          session_id text 0..64
---          generation integer 0..9007199254740991
---          token_ms integer 1..3600000
---          renewal_ms integer 1..2592000000
--- BATCH_MAX 50
--- USES     open run family agent_token
--- RETURNS  RENEWED token_expires_ms renewal_expires_ms | REUSED | MISMATCH | UNKNOWN | EXPIRED | REVOKED
--- FLAGS    allow-oom
--- COST     O(1); 9 calls
local function renew(e)
  local record = k_renewal .. e.family_id
  local family = fields_of(call('HGETALL', record))
  local place = standing(family, e.hash)
  -- Sent again by us, because the reply of Redis was lost: it was done.
  local done = place and family.current == e.next_hash
  if not place then
    return {'UNKNOWN'}
  end
  if family.revoked_ms then
    return {'REVOKED'}
  end
  if now >= tonumber(family.expires_ms) then
    return {'EXPIRED'}
  end
  if place == 'reused' and not done then
    end_reused(e.family_id, family)
    return {'REUSED'}
  end
  if family.agent_id ~= e.agent_id or family.boot_id ~= e.boot_id then
    return {'MISMATCH'}
  end
  local name = k_family_of .. family.namespace .. '/' .. family.agent_id
  call('GET', name)
  call('HGET', k_agent_token .. e.token_id, 'hash')

  if not done and place == 'current' then
    call('HSET', record, unpack(rotated(family, e.next_hash)))
  elseif not done then
    local spent = string.sub((family.replaced or '') .. (family.spent or ''), 1, 64 * SPENT_MAX)
    call('HSET', record, 'current', e.next_hash, 'previous_spent', '1', 'replaced', family.current, 'spent', spent)
  end
  local expires = text_of(now + e.renewal_ms)
  call('HSET', record, 'session_id', e.session_id, 'generation', text_of(e.generation), 'expires_ms', expires)
  call('PEXPIRE', record, e.renewal_ms)
  call('SET', name, e.family_id, 'PX', e.renewal_ms)
  return {'RENEWED', write_token(e.token_id, e.token_hash, e.family_id, e.token_ms), expires}
end
return run(renew)
