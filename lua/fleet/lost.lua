--- One bounded step of what time brings: silent agents become OFFLINE, old records go, and what queues are owed is told.
---
--- COMMON   now_ms integer 0..9007199254740991 =0 | 0 means the server's clock
--- BATCH_MAX 1
--- USES     watch owe safely
--- WRITES   agents: deletes only
--- MAY_WRITE pool: deletes only
--- RETURNS  LOST owed more
--- FLAGS    allow-oom
--- COST     O(k log n), k ≤ 20 agents, 50 records, 20 entries; 6 calls each
local STEP = 20
local TRIM_STEP = 50
local OFFLINE_AFTER_MS = 30000
local ENDED_MS_MAX = 604800000
local ENDED_MAX = 10000
-- Who took an entry tells the queue; when it does not say that it did, the next one tells it again.
local AGAIN_MS = 5000
if not meta.schema then
  return {{'LOST', {}, 0}}
end

-- After the clock was set back an agent was last heard in what is now the future: its silence counts from now.
local function hear_now(agent)
  local one = record(agent)
  if one then
    call('HSET', k_agent .. agent, 'seen_ms', now_text)
    watch(agent, now, int(one.heartbeat_ms))
  else
    call('ZREM', k_watch, agent)
  end
end

local function declare(agent)
  local one = record(agent)
  if not one or one.ended_ms or one.offline_ms then
    call('ZREM', k_watch, agent)
    return
  end
  local since = math.max(math.min(int(one.seen_ms), now), int(meta.resumed_ms))
  if since + MISSED * int(one.heartbeat_ms) + OFFLINE_AFTER_MS > now then
    watch(agent, since, int(one.heartbeat_ms))
    return
  end
  share(one, 0, 0)
  call('HSET', k_agent .. agent, 'offline_ms', now_text, 'recent', '0', 'recent_failed', '0')
  call('ZREM', k_watch, agent)
  call('ZADD', k_ended, now_text, agent)
  owe(now, agent, one.pool, int(one.generation), 'lose', now)
  event('agent.offline', agent, 'OFFLINE', one.pool)
end

local function trim(agent)
  local one = record(agent)
  call('ZREM', k_ended, agent)
  if one and (one.ended_ms or one.offline_ms) then
    must_be('zset', k_pool .. one.pool)
    call('ZREM', k_agents, agent)
    call('ZREM', k_pool .. one.pool, agent)
    call('DEL', k_agent .. agent)
  end
end

local function told(row, due)
  local agent, pool, generation, how, until_ms = string.match(row, '^(%S+) (%S+) (%d+) (%S+) (%d+)$')
  if not agent then
    call('ZREM', k_owed, row)
    return nil
  end
  local one = record(agent)
  local here = one and one.pool == pool and not one.ended_ms and not one.offline_ms
  -- What was owed to an older session's end goes with the word of the present one, which the queue takes as well.
  local known = one and how ~= 'lose' and one.generation or generation
  call('ZADD', k_owed, text_of(due), row)
  return {agent, pool, generation, how, until_ms, known, here and one.capacity or '0', one and one.draining or '0'}
end

local ahead = now + MISSED * 2 * math.max(BEAT_MS_MIN, watched * 1000 / BEATS_A_S)
for _, agent in ipairs(call('ZREVRANGEBYSCORE', k_watch, '+inf', '(' .. text_of(ahead), 'LIMIT', 0, STEP)) do
  safely(hear_now, agent)
end
local silent = call('ZRANGEBYSCORE', k_watch, '-inf', text_of(now - OFFLINE_AFTER_MS), 'LIMIT', 0, STEP)
for _, agent in ipairs(silent) do
  safely(declare, agent)
end
local old = call('ZRANGEBYSCORE', k_ended, '-inf', text_of(now - ENDED_MS_MAX), 'LIMIT', 0, TRIM_STEP)
local surplus = call('ZCARD', k_ended) - ENDED_MAX
if #old == 0 and surplus > 0 then
  old = call('ZRANGE', k_ended, 0, math.min(surplus, TRIM_STEP) - 1)
end
for _, agent in ipairs(old) do
  safely(trim, agent)
end
local due = call('ZRANGEBYSCORE', k_owed, '-inf', now_text, 'LIMIT', 0, STEP)
local rows = {}
for _, row in ipairs(due) do
  rows[#rows + 1] = safely(told, row, now + AGAIN_MS)
end
close()
return {{'LOST', rows, (#silent == STEP or #old == TRIM_STEP or #due == STEP) and 1 or 0}}
