--- The trust rules, of whatever namespace, for proofs of one issuer and audience.
---
--- COMMON   now_ms integer 0..9007199254740991 =0 | 0 means the server's clock
--- EACH     proof name
--- BATCH_MAX 20
--- USES     open run
--- READS    rules_of
--- RETURNS  RULES texts
--- FLAGS    no-writes
--- COST     O(n) of the rules found, at most 200; 2 calls
local function find_rules(e)
  local flat = call('HGETALL', k_rules_of .. e.proof)
  local texts = {}
  for i = 2, #flat, 2 do
    texts[#texts + 1] = flat[i]
  end
  return {'RULES', texts}
end
return run(find_rules)
