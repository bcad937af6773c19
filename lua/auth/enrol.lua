--- Give an agent its tokens: a new family with its first renewal token, and an agent token that stands on it. An older
--- family of the same agent ends, and all tokens that stand on it: whoever proved anew that the agent is theirs has it.
---
--- COMMON   now_ms integer 0..9007199254740991 =0 | 0 means the server's clock
--- EACH     family_id name
---          hash text 64..64 | of the renewal token
---          token_id name
---          token_hash text 64..64 | of the agent token
---          namespace name
---          agent_id name
---          boot_id text 1..128
---          session_id text 0..64
---          generation integer 0..9007199254740991
---          pool name
---          grant text 2..16384 | JSON: scopes, pools, labels
---          created_by text 0..128 | the credential it registered with
---          token_ms integer 1..3600000
---          renewal_ms integer 1..2592000000
--- BATCH_MAX 50
--- USES     open run family agent_token
--- RETURNS  ENROLLED token_expires_ms renewal_expires_ms
--- COST     O(1); 11 calls
local function enrol(e)
  local record, name = k_renewal .. e.family_id, k_family_of .. e.namespace .. '/' .. e.agent_id
  local older_id = call('GET', name)
  local older = older_id and fields_of(call('HGETALL', k_renewal .. older_id)) or {}
  local mine = call('HGET', record, 'current') == e.hash
  call('HGET', k_agent_token .. e.token_id, 'hash')

  if older.current and not older.revoked_ms and older_id ~= e.family_id then
    end_family(older_id, older, 'enrolled anew')
  end
  local expires = text_of(now + e.renewal_ms)
  if not mine then
    call('HSET', record, 'current', e.hash, 'namespace', e.namespace, 'agent_id', e.agent_id, 'boot_id', e.boot_id,
      'session_id', e.session_id, 'generation', text_of(e.generation), 'pool', e.pool, 'grant', e.grant,
      'created_by', e.created_by, 'created_ms', now_text, 'expires_ms', expires)
    call('PEXPIRE', record, e.renewal_ms)
    call('SET', name, e.family_id, 'PX', e.renewal_ms)
  end
  return {'ENROLLED', write_token(e.token_id, e.token_hash, e.family_id, e.token_ms), expires}
end
return run(enrol)
