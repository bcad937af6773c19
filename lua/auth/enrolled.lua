--- The credential that an agent's tokens were given for: who registered it.
---
--- COMMON   now_ms integer 0..9007199254740991 =0 | 0 means the server's clock
--- EACH     namespace name
---          agent_id name
--- BATCH_MAX 50
--- USES     open run
--- READS    family_of renewal
--- RETURNS  ENROLLED created_by | NOT_FOUND
--- FLAGS    no-writes
--- COST     O(1); 2 calls
local function enrolled(e)
  local id = call('GET', k_family_of .. e.namespace .. '/' .. e.agent_id)
  local created_by = id and call('HGET', k_renewal .. id, 'created_by')
  return created_by and {'ENROLLED', created_by} or {'NOT_FOUND'}
end
return run(enrolled)
