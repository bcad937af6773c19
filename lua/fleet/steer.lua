--- Have an agent drain, or take work again. What is so already stays as it is.
---
--- COMMON   now_ms integer 0..9007199254740991 =0 | 0 means the server's clock
--- EACH     agent name
---          draining integer 0..1
---          reason text 0..500
---          by text 0..128
--- BATCH_MAX 20
--- USES     record run
--- MAY_WRITE agent: fields of a record that is there
--- RETURNS  STEERED pool generation capacity draining | TERMINATED | NOT_REGISTERED
--- FLAGS    allow-oom
--- COST     O(1) an agent; 2 calls
local function steer(e)
  local one = record(e.agent)
  if not one then
    return {'NOT_REGISTERED'}
  end
  if one.ended_ms then
    return {'TERMINATED'}
  end
  local key = k_agent .. e.agent
  if e.draining == 1 and not one.draining then
    call('HSET', key, 'draining', '1', 'drain_reason', e.reason, 'drain_by', e.by, 'drain_ms', now_text)
    event('agent.draining', e.agent, 'DRAINING', one.pool)
  elseif e.draining == 0 and one.draining then
    call('HDEL', key, 'draining', 'drain_reason', 'drain_by', 'drain_ms')
    event('agent.resumed', e.agent, 'HEALTHY', one.pool)
  end
  return {'STEERED', one.pool, one.generation, one.capacity, e.draining}
end
return run(steer)
