--- End an agent's family: its renewal token and all its agent tokens are refused from the next call on.
---
--- COMMON   now_ms integer 0..9007199254740991 =0 | 0 means the server's clock
--- EACH     namespace name
---          agent_id name
---          why text 1..64
--- BATCH_MAX 50
--- USES     open run family
--- RETURNS  ENDED | NOT_FOUND
--- FLAGS    allow-oom
--- COST     O(1); 5 calls
local function end_agent(e)
  local id = call('GET', k_family_of .. e.namespace .. '/' .. e.agent_id)
  local family = id and fields_of(call('HGETALL', k_renewal .. id)) or {}
  if not family.current then
    return {'NOT_FOUND'}
  end
  end_family(id, family, e.why)
  return {'ENDED'}
end
return run(end_agent)
