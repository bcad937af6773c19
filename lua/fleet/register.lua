--- Begin a session of an agent. The same boot in the same pool goes on with the session it has.
---
--- COMMON   now_ms integer 0..9007199254740991 =0 | 0 means the server's clock
--- EACH     agent name
---          pool name
---          boot_id text 1..128 | of one start of the agent: what tells a repeated call from another process
---          session_id text 32..32 | random; taken when a session begins
---          version text 0..128
---          labels text 2..32768 | JSON
---          features text 2..8192 | JSON
---          capacity integer 1..1000
---          jitter integer 0..1048575
--- BATCH_MAX 20
--- USES     watch owe run
--- WRITES   agents: one entry an agent that has a record
--- MAY_WRITE pool: one entry an agent of the pool that has a record
--- RETURNS  REGISTERED session_id generation created heartbeat_ms left | FULL limit
--- FLAGS    allow-oom
--- COST     O(log n) an agent; 10 calls
local AGENTS_MAX = 100000
-- Who registers tells the queues itself; only when it ended before that, somebody else does.
local TOLD_BY_ITSELF_MS = 5000

-- The pools it was in and that have yet to be told, without the one it is in now.
local function left_pools(one, pool)
  local names, taken = {}, {[pool] = true}
  for name in string.gmatch((one.left or '') .. ' ' .. one.pool, '%S+') do
    if not taken[name] and #names < 8 then
      taken[name] = true
      names[#names + 1] = name
    end
  end
  return names
end

local function register(e)
  local agent, one = e.agent, record(e.agent)
  if not one and call('ZCARD', k_agents) >= AGENTS_MAX then
    return {'FULL', AGENTS_MAX}
  end
  must_be('zset', k_pool .. e.pool)
  local said = {'version', e.version, 'labels', e.labels, 'features', e.features, 'capacity', e.capacity}
  if one and one.boot_id == e.boot_id and one.pool == e.pool and not one.ended_ms then
    seen(agent, one, said)
    return {'REGISTERED', one.session_id, one.generation, 0, one.heartbeat_ms, one.left or ''}
  end
  if one and one.pool ~= e.pool then
    must_be('zset', k_pool .. one.pool)
  end

  local generation = math.max(int(one and one.generation) + 1, now)
  local heartbeat_ms = beat_ms(e.jitter, 0)
  local left = one and left_pools(one, e.pool) or {}
  found()
  share(one, 0, 0)
  if one then
    call('DEL', k_agent .. agent)
    call('ZREM', k_ended, agent)
    if one.pool ~= e.pool then
      call('ZREM', k_pool .. one.pool, agent)
    end
    if not one.ended_ms then
      event('agent.superseded', agent, 'TERMINATED', one.pool)
    end
  end
  local session = {pool = e.pool, heartbeat_ms = text_of(heartbeat_ms)}
  for field, value in pairs({pool = e.pool, boot_id = e.boot_id, session_id = e.session_id,
    generation = text_of(generation), registered_ms = now_text, heartbeat_ms = session.heartbeat_ms}) do
    said[#said + 1] = field
    said[#said + 1] = value
  end
  if #left > 0 then
    said[#said + 1] = 'left'
    said[#said + 1] = table.concat(left, ' ')
  end
  seen(agent, session, said)
  call('ZADD', k_agents, '0', agent)
  call('ZADD', k_pool .. e.pool, '0', agent)
  owe(now + TOLD_BY_ITSELF_MS, agent, e.pool, generation, 'supersede', 0)
  for _, pool in ipairs(left) do
    owe(now + TOLD_BY_ITSELF_MS, agent, pool, generation, 'supersede', 0)
  end
  event('agent.registered', agent, 'HEALTHY', e.pool)
  return {'REGISTERED', e.session_id, text_of(generation), 1, text_of(heartbeat_ms), table.concat(left, ' ')}
end
return run(register)
