--- Who is this, and may they call now? One credential looked up and one limiter moved, for each request.
---
--- What was presented is sent as its SHA-256. Comparing that here is no oracle: Lua compares interned strings, and who
--- learned the whole hash of a secret of 256 bits would still not have the secret. The caller compares again, in
--- constant time. An id that is not there costs what one that is there costs.
---
--- The limiter (GCRA, ITU-T I.371) belongs to the credential only when the secret was right: else whoever saw an id
--- could use up its budget. Every other call counts for the place it comes from.
---
--- COMMON   now_ms integer 0..9007199254740991 =0 | 0 means the server's clock
--- EACH     kind none/key/registration/agent/renewal/session
---          id name | 0 when nothing was presented
---          hash text 64..64
---          peer name | stands for where the call comes from
---          rate_class name
---          interval_us integer 0..3600000000 | between two calls at the steady rate; 0: no limit
---          burst integer 1..100000
--- BATCH_MAX 100
--- USES     open run family
--- READS    registration agent_token rules
--- MAY_WRITE key: 10,000 a namespace, and revoked ones for a day
--- MAY_WRITE session: 50 a person, by its own time to live
--- MAY_WRITE rate: one a caller and class, until its budget is whole again, by its own time to live
--- RETURNS  NONE record family limited remaining reset_ms retry_ms | VALID the same | UNKNOWN the same
---          EXPIRED the same | REVOKED the same
--- FLAGS    allow-oom
--- COST     O(1); 6 calls
local USED_STEP_MS = 60000
local RECORDS = {
  none = k_key, key = k_key, registration = k_registration, agent = k_agent_token, renewal = k_renewal,
  session = k_session,
}
local NOTED = {key = k_key, session = k_session}

local function is_over(record)
  return record.expires_ms and now >= tonumber(record.expires_ms)
end

local function standing_of_session(record)
  local idle = tonumber(record.idle_ms)
  return now - tonumber(record.used_ms) >= idle and 'EXPIRED' or 'VALID'
end

local function standing_of_agent(record, family, rule_is_there)
  if record.family then
    if not family.current or family.revoked_ms then
      return 'REVOKED'
    end
    return is_over(family) and 'EXPIRED' or 'VALID'
  end
  return rule_is_there and 'VALID' or 'REVOKED'
end

-- The verdict, and how a renewal token stands in its family.
local function judge(e, record, family, rule_is_there)
  if e.kind == 'none' then
    return 'NONE'
  end
  local place = e.kind == 'renewal' and standing(record, e.hash) or nil
  if not place and record.hash ~= e.hash then
    return 'UNKNOWN'
  end
  if record.revoked_ms then
    return 'REVOKED'
  end
  if is_over(record) then
    return 'EXPIRED'
  end
  if place == 'reused' then
    return 'REVOKED', place
  end
  if e.kind == 'session' then
    return standing_of_session(record)
  end
  if e.kind == 'agent' then
    return standing_of_agent(record, family, rule_is_there)
  end
  return 'VALID'
end

-- Noted now and then, not at every call: a minute more or less tells nobody more.
local function use_is_news(e, record)
  local step = USED_STEP_MS
  if e.kind == 'session' then
    step = math.min(step, math.floor(tonumber(record.idle_ms) / 10))
  end
  return NOTED[e.kind] and now - tonumber(record.used_ms or 0) >= step
end

local function admit(e)
  local flat = call('HGETALL', RECORDS[e.kind] .. e.id)
  local record = fields_of(flat)
  local family_flat = call('HGETALL', k_renewal .. (record.family or '0'))
  local family = fields_of(family_flat)
  local rule_is_there = call('HEXISTS', k_rules .. (record.namespace or '0'), record.rule or '0') == 1
  local verdict, place = judge(e, record, family, rule_is_there)

  local key = k_rate .. e.rate_class .. ':' .. (verdict == 'VALID' and 'id-' .. e.id or 'at-' .. e.peer)
  local now_us, room_us = now * 1000, e.burst * e.interval_us
  -- Budget that is used up, as the time by which it is whole again. A clock that went back, or a limit that was
  -- lowered, must not lock anybody out for longer than the limit itself does.
  local whole_us = math.min(math.max(tonumber(call('GET', key) or 0), now_us), now_us + room_us)
  local after_us = whole_us + e.interval_us
  local limited = after_us > now_us + room_us

  if place == 'reused' then
    end_reused(e.id, record)
  end
  if verdict == 'VALID' and use_is_news(e, record) then
    call('HSET', NOTED[e.kind] .. e.id, 'used_ms', now_text)
  end
  if e.interval_us > 0 and not limited then
    whole_us = after_us
    call('SET', key, text_of(whole_us), 'PX', math.ceil((whole_us - now_us) / 1000))
  end

  local known = verdict ~= 'NONE' and verdict ~= 'UNKNOWN'
  local left = e.interval_us == 0 and e.burst or math.floor((now_us + room_us - whole_us) / e.interval_us)
  return {
    verdict, known and flat or {}, known and family_flat or {}, limited and 1 or 0,
    limited and 0 or left, math.ceil((whole_us - now_us) / 1000),
    limited and math.ceil((after_us - now_us - room_us) / 1000) or 0,
  }
end
return run(admit)
