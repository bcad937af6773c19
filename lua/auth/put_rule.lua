--- Set a trust rule: whose proofs are exchanged for a token, and for which. It is found again by issuer and audience.
---
--- COMMON   now_ms integer 0..9007199254740991 =0 | 0 means the server's clock
--- EACH     namespace name
---          id name
---          proof name | stands for issuer and audience together
---          text text 2..16384 | JSON, the whole rule
--- BATCH_MAX 20
--- USES     open run
--- MAY_WRITE rules: 200 a namespace
--- MAY_WRITE rules_of: 200 an issuer and audience, the same rules
--- RETURNS  CREATED | CHANGED | FULL limit
--- COST     O(1); 7 calls
local RULES_MAX = 200
local function put_rule(e)
  local rules, rules_of, field = k_rules .. e.namespace, k_rules_of .. e.proof, e.namespace .. '/' .. e.id
  local stored = call('HGET', rules, e.id)
  local old = stored and string.match(stored, '^([^\n]*)\n')
  if not stored and call('HLEN', rules) >= RULES_MAX then
    return {'FULL', RULES_MAX}
  end
  if call('HEXISTS', rules_of, field) == 0 and call('HLEN', rules_of) >= RULES_MAX then
    return {'FULL', RULES_MAX}
  end

  if old and old ~= e.proof then
    call('HDEL', k_rules_of .. old, field)
  end
  call('HSET', rules, e.id, e.proof .. '\n' .. e.text)
  call('HSET', rules_of, field, e.text)
  return {stored and 'CHANGED' or 'CREATED'}
end
return run(put_rule)
