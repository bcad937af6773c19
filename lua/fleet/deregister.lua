--- End an agent's session for good. Its generation grows, so that whatever the session still says is refused.
---
--- COMMON   now_ms integer 0..9007199254740991 =0 | 0 means the server's clock
--- EACH     agent name
---          session_id text 0..32 | empty: whichever it is
---          reason text 0..500
--- BATCH_MAX 20
--- USES     watch owe run
--- RETURNS  TERMINATED pool generation left | NOT_REGISTERED | SUPERSEDED
--- FLAGS    allow-oom
--- COST     O(log n) an agent; 6 calls
local TOLD_BY_ITSELF_MS = 5000
local function deregister(e)
  local one = record(e.agent)
  if not one then
    return {'NOT_REGISTERED'}
  end
  if e.session_id ~= '' and one.session_id ~= e.session_id then
    return {'SUPERSEDED'}
  end
  if one.ended_ms then
    return {'TERMINATED', one.pool, one.generation, one.left or ''}
  end
  local generation = math.max(int(one.generation) + 1, now)
  share(one, 0, 0)
  call('HSET', k_agent .. e.agent, 'ended_ms', now_text, 'generation', text_of(generation), 'end_reason', e.reason,
    'recent', '0', 'recent_failed', '0')
  call('ZREM', k_watch, e.agent)
  call('ZADD', k_ended, now_text, e.agent)
  owe(now + TOLD_BY_ITSELF_MS, e.agent, one.pool, generation, 'give_back', 0)
  event('agent.terminated', e.agent, 'TERMINATED', one.pool)
  return {'TERMINATED', one.pool, text_of(generation), one.left or ''}
end
return run(deregister)
