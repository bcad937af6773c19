--- Give an agent token for a proof of another issuer, by a trust rule. It stands on the rule, and on no agent yet.
---
--- COMMON   now_ms integer 0..9007199254740991 =0 | 0 means the server's clock
--- EACH     token_id name
---          token_hash text 64..64
---          namespace name
---          rule name
---          subject text 1..256 | whom the issuer spoke of
---          pool name
---          grant text 2..16384 | JSON: scopes
---          token_ms integer 1..3600000
--- BATCH_MAX 50
--- USES     open run
--- READS    rules
--- MAY_WRITE agent_token: one a token, an hour at most, by its own time to live
--- RETURNS  ISSUED token_expires_ms | NO_RULE
--- COST     O(1); 5 calls
local function exchange(e)
  local record = k_agent_token .. e.token_id
  call('HGET', record, 'hash')
  if call('HEXISTS', k_rules .. e.namespace, e.rule) == 0 then
    return {'NO_RULE'}
  end
  local expires = text_of(now + e.token_ms)
  call('HSET', record, 'hash', e.token_hash, 'namespace', e.namespace, 'rule', e.rule, 'name', e.subject,
    'pool', e.pool, 'grant', e.grant, 'created_ms', now_text, 'expires_ms', expires)
  call('PEXPIRE', record, e.token_ms)
  return {'ISSUED', expires}
end
return run(exchange)
