--- Bind a token that came by a trust rule to the agent that registers with it. The first one has it.
---
--- COMMON   now_ms integer 0..9007199254740991 =0 | 0 means the server's clock
--- EACH     token_id name
---          agent_id name
---          boot_id text 1..128
--- BATCH_MAX 50
--- USES     open run
--- MAY_WRITE agent_token: one a token, an hour at most, by its own time to live
--- RETURNS  BOUND | TAKEN agent_id | UNKNOWN
--- COST     O(1); 3 calls
local function bind(e)
  local record = k_agent_token .. e.token_id
  local found = fields_of(call('HGETALL', record))
  if not found.rule then
    return {'UNKNOWN'}
  end
  if found.agent_id and (found.agent_id ~= e.agent_id or found.boot_id ~= e.boot_id) then
    return {'TAKEN', found.agent_id}
  end
  call('HSET', record, 'agent_id', e.agent_id, 'boot_id', e.boot_id)
  return {'BOUND'}
end
return run(bind)
