--- The trust rules of a namespace, all of them.
---
--- COMMON   now_ms integer 0..9007199254740991 =0 | 0 means the server's clock
--- EACH     namespace name
--- BATCH_MAX 1
--- USES     open run
--- READS    rules
--- RETURNS  RULES texts
--- FLAGS    no-writes
--- COST     O(n) of the rules, at most 200; 2 calls
local function list_rules(e)
  local flat = call('HGETALL', k_rules .. e.namespace)
  local texts = {}
  for i = 2, #flat, 2 do
    texts[#texts + 1] = string.match(flat[i], '\n(.*)$')
  end
  return {'RULES', texts}
end
return run(list_rules)
