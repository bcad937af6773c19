--- How often an agent is to beat, when it will have missed two beats, and what its sign of life means.
--- USES     record
--- WRITES   agent: one hash an agent, at most 100,000, trimmed by lost 7 days or 10,000 agents after its end
--- WRITES   watch: one entry an agent that is neither OFFLINE nor TERMINATED
--- WRITES   ended: agents that are OFFLINE or TERMINATED, for 7 days, the last 10,000, trimmed by lost
local BEAT_MS_MIN = 10000
local BEATS_A_S = 50
local MISSED = 2
local watched = call('ZCARD', k_watch)
local function beat_ms(jitter, shortest_lease_ms)
  local ms = math.max(BEAT_MS_MIN, watched * 1000 / BEATS_A_S) * (0.9 + 0.2 * jitter / 1048575)
  if shortest_lease_ms > 0 then
    -- Whoever misses a beat or two still renews its lease in time.
    ms = math.min(ms, shortest_lease_ms / 3)
  end
  return math.floor(ms)
end
local function watch(agent, since_ms, heartbeat_ms)
  call('ZADD', k_watch, text_of(since_ms + MISSED * heartbeat_ms), agent)
end
-- Any sign of life is one: a beat, a claim, a repeated registration.
local function seen(agent, one, fields)
  local heartbeat_ms = int(one.heartbeat_ms)
  fields[#fields + 1] = 'seen_ms'
  fields[#fields + 1] = now_text
  call('HSET', k_agent .. agent, unpack(fields))
  watch(agent, now, heartbeat_ms)
  if one.offline_ms then
    call('HDEL', k_agent .. agent, 'offline_ms')
    call('ZREM', k_ended, agent)
    event('agent.returned', agent, one.draining and 'DRAINING' or 'HEALTHY', one.pool)
  end
end
