--- What time brings: leases that ran out are reaped, due jobs promoted, old records trimmed, each at most k a call.
--- USES     requeue erase logs safely
--- MAY_WRITE tombs: ids trimmed by count in the last meta.tombstone_ms, trimmed by upkeep
--- MAY_WRITE tombs_by_age: as tombs
--- WRITES   agents: the 1,000 agents that claimed last, trimmed by upkeep
--- MOVES    promote:SCHEDULED>QUEUED
--- MOVES    trim:COMPLETED>NEW trim:FAILED>NEW trim:CANCELLED>NEW trim:EXPIRED>NEW trim:DEAD_LETTERED>NEW
local STEP = 25
local TRIM_STEP = 100
local LOG_STEP = 10
local LEASE_MS_MAX = 3600000
local did = {requeued = 0, dead_lettered = 0, promoted = 0, trimmed = 0, more = 0}
local function renew_until(id, agent, deadline)
  local text = text_of(deadline)
  call('ZADD', k_held .. agent, text, id)
  call('ZADD', k_leased, text, id)
end
-- Most claims have none of this to do: what it needs is made where it is needed.
local function upkeep()
  -- A lease that could not be renewed because Redis was away, or everybody was cut off, gets one lease of grace.
  local function in_grace(lease_ms, deadline)
    local gap, gap_at = tonumber(meta.gap_ms or 0), tonumber(meta.gap_at_ms or 0)
    -- A gap that lies ahead was seen by a clock that has been set back since.
    local recent = now < gap_at + lease_ms and now > gap_at - lease_ms
    return 2 * gap > lease_ms and deadline - lease_ms <= gap_at and recent, gap_at + lease_ms
  end
  local function reap()
    -- After the server's clock was set back, deadlines lie too far ahead: no lease lasts longer than the longest.
    local ahead = call('ZREVRANGEBYSCORE', k_leased, '+inf', '(' .. text_of(now + LEASE_MS_MAX), 'LIMIT', 0, STEP)
    for i = 1, #ahead do
      local job = safely(record, ahead[i])
      if job then
        safely(renew_until, ahead[i], job.agent, now + int(job.lease_ms))
      end
    end
    local expired = call('ZRANGEBYSCORE', k_leased, '-inf', now_text, 'WITHSCORES', 'LIMIT', 0, STEP)
    for i = 1, #expired, 2 do
      local id = expired[i]
      local job = safely(record, id)
      if job and leased(job.status) then
        local spared, deadline = in_grace(int(job.lease_ms), tonumber(expired[i + 1]))
        if spared then
          safely(renew_until, id, job.agent, deadline)
        else
          local to = safely(lose, id, job)
          if to == 'DEAD_LETTERED' then
            did.dead_lettered = did.dead_lettered + 1
          elseif to then
            did.requeued = did.requeued + 1
          end
        end
      end
    end
    if #expired == 2 * STEP then
      did.more = 1
    end
  end
  local function make_due(id, job)
    move('promote', id, job, 'QUEUED', nil, {'ready_ms', job.due_ms or now_text})
    event('job.promoted', id, 'QUEUED', nil, job.attempt)
    return true
  end
  local function promote()
    local left = STEP
    for _, priority in ipairs({'CRITICAL', 'HIGH', 'NORMAL', 'LOW'}) do
      if left == 0 then
        did.more = 1
        return
      end
      local due = call('ZRANGEBYSCORE', k_scheduled .. priority, '-inf', now_text, 'LIMIT', 0, left)
      for i = 1, #due do
        local job = safely(record, due[i])
        if job and job.status == 'SCHEDULED' and safely(make_due, due[i], job) then
          did.promoted = did.promoted + 1
        end
      end
      left = left - #due
    end
  end
  -- Records that go before their tombstone's time shrink to one: a caller that retries still gets its first answer.
  local function bury(ids)
    local texts, names = {}, {}
    for i = 1, #ids do
      local job = safely(record, ids[i])
      if job and job.digest then
        names[#names + 1] = ids[i]
        texts[#texts + 1] = ids[i]
        texts[#texts + 1] = now_text .. ' ' .. job.digest .. ' ' .. (job.fence or 0) .. ' ' .. (job.outcome or '-') ..
          ' ' .. job.status
      end
    end
    if #names > 0 then
      call('HSET', k_tombs, unpack(texts))
      call('RPUSH', k_tombs_by_age, unpack(names))
    end
  end
  local function trim()
    local old = call('ZRANGEBYSCORE', k_finished, '-inf', text_of(now - meta.retention_ms), 'LIMIT', 0, TRIM_STEP)
    local by_age = #old
    if tonumber(meta.retention_ms) < tonumber(meta.tombstone_ms) then
      bury(old)
    end
    if by_age < TRIM_STEP then
      local extra = call('ZCARD', k_finished) - by_age - meta.retention_count
      if extra > 0 then
        local oldest = call('ZRANGE', k_finished, by_age, by_age + math.min(extra, TRIM_STEP - by_age) - 1)
        bury(oldest)
        for i = 1, #oldest do
          old[#old + 1] = oldest[i]
        end
      end
    end
    erase(k_finished, old)
    local surplus = call('ZCARD', k_dead) - meta.max_dead
    if surplus > 0 then
      local oldest = call('ZRANGE', k_dead, 0, math.min(surplus, TRIM_STEP) - 1)
      bury(oldest)
      erase(k_dead, oldest)
      count('dead_dropped', #oldest)
      did.trimmed = did.trimmed + #oldest
    end
    did.trimmed = did.trimmed + #old
    if #old >= TRIM_STEP or surplus > TRIM_STEP then
      did.more = 1
    end
  end
  local function trim_logs()
    if not make_log_room(0, LOG_STEP) and call('ZCARD', k_logs) > 0 then
      did.more = 1
    end
  end
  local function trim_tombs()
    local oldest = call('LRANGE', k_tombs_by_age, 0, TRIM_STEP - 1)
    local gone = 0
    for i = 1, #oldest do
      local tomb = call('HGET', k_tombs, oldest[i])
      if tomb and tonumber(string.match(tomb, '^%d+') or 0) > now - meta.tombstone_ms then
        break
      end
      call('HDEL', k_tombs, oldest[i])
      gone = i
    end
    if gone > 0 then
      call('LTRIM', k_tombs_by_age, gone, -1)
    end
  end
  -- Each minute's buckets go into latency:all once, so that figures since the beginning cost as little as a window's.
  local function fold()
    local minute, last = math.floor(now / 60000), tonumber(meta.folded_minute or 0)
    if last == 0 then
      keep('folded_minute', text_of(minute - 1))
    elseif minute - 1 > last then
      keep('folded_minute', text_of(math.max(last + 1, minute - 120)))
      local buckets = call('HGETALL', k_latency .. text_of(last + 1))
      for i = 1, #buckets, 2 do
        call('HINCRBY', k_latency .. 'all', buckets[i], buckets[i + 1])
      end
    end
  end
  need('gap_ms', 'gap_at_ms', 'retention_ms', 'retention_count', 'max_dead', 'tombstone_ms', 'folded_minute', 'logs_bytes', 'logs_bytes_max')
  must_be('hash', k_tombs)
  must_be('list', k_tombs_by_age)
  must_be('hash', k_spec)
  must_be('hash', k_result)
  reap()
  promote()
  trim()
  trim_logs()
  trim_tombs()
  safely(fold)
  call('ZREMRANGEBYRANK', k_agents, 0, -1001)
  keep('upkeep_ms', did.more == 1 and '0' or now_text)
end
-- Milliseconds until something is due, -1 for never. While leases are out, sleepers look in often enough that a
-- holder's death is no gap in activity: an outage is told from a lost lease by somebody having been there.
local function next_due()
  local first
  local function earlier(ms)
    if not first or ms < first then
      first = ms
    end
  end
  for _, priority in ipairs({'CRITICAL', 'HIGH', 'NORMAL', 'LOW'}) do
    local head = call('ZRANGE', k_scheduled .. priority, 0, 0, 'WITHSCORES')
    if head[1] then
      earlier(head[2] - now)
    end
  end
  local lease = call('ZRANGE', k_leased, 0, 0, 'WITHSCORES')
  if lease[1] then
    earlier(lease[2] - now)
    -- Whatever the record is, the answer must come: everything else of this call is written by now.
    local lease_ms = tonumber(redis.pcall('HGET', k_job .. lease[1], 'lease_ms')) or 0
    earlier(math.max(200, lease_ms / 4))
  end
  return first and math.max(0, math.ceil(first)) or -1
end
