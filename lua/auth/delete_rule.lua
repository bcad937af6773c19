--- Delete a trust rule; tokens that were given by it are refused from the next call on.
---
--- COMMON   now_ms integer 0..9007199254740991 =0 | 0 means the server's clock
--- EACH     namespace name
---          id name
--- BATCH_MAX 20
--- USES     open run
--- MAY_WRITE rules: 200 a namespace
--- MAY_WRITE rules_of: 200 an issuer and audience
--- RETURNS  DELETED | NOT_FOUND
--- FLAGS    allow-oom
--- COST     O(1); 3 calls
local function delete_rule(e)
  local rules = k_rules .. e.namespace
  local stored = call('HGET', rules, e.id)
  if not stored then
    return {'NOT_FOUND'}
  end
  call('HDEL', rules, e.id)
  call('HDEL', k_rules_of .. string.match(stored, '^([^\n]*)\n'), e.namespace .. '/' .. e.id)
  return {'DELETED'}
end
return run(delete_rule)
