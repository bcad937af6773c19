--- Every way out of a lease or a waiting place, and every way into one: status, index, held set, unique key, counters, event.
--- USES     open close record
--- NEEDS    order
--- WRITES   job: one hash a record, deleted with it by upkeep or purge
--- WRITES   ready: one entry a QUEUED job, gone when it leaves
--- WRITES   scheduled: one entry a SCHEDULED job, gone when it leaves
--- WRITES   blocked: one entry a BLOCKED job, gone when it leaves
--- WRITES   leased: one entry a lease, gone when it ends
--- WRITES   held: one entry a lease of the agent, gone when it ends
--- WRITES   dead: meta.max_dead entries, trimmed by upkeep
--- WRITES   finished: meta.retention_count entries, trimmed by upkeep
--- WRITES   logs: one entry an ended job with a log, gone with the log or when the job lives again
--- MAY_WRITE unique: one field a live job with a key, gone when it ends
local BAND = {CRITICAL = 0, HIGH = 1, NORMAL = 2, LOW = 3}
local FINISHED = {COMPLETED = true, FAILED = true, CANCELLED = true, EXPIRED = true}
local function leased(status)
  return status == 'CLAIMED' or status == 'RUNNING'
end
local function leave(id, job)
  local from = job.status
  if from == 'QUEUED' then
    call('ZREM', k_ready .. job.lane, id)
  elseif from == 'SCHEDULED' then
    call('ZREM', k_scheduled .. job.priority, id)
  elseif from == 'BLOCKED' then
    call('ZREM', k_blocked, id)
  elseif leased(from) then
    call('ZREM', k_held .. job.agent, id)
    call('ZREM', k_leased, id)
    call('HDEL', k_job .. id, 'agent', 'lease_id', 'lease_ms', 'request', 'session', 'claimed_ms', 'started_ms',
      'confirmed', 'cancel_ms', 'cancel_mode', 'cancel_grace_ms')
    if from == 'RUNNING' then
      count('running', -1)
    end
  elseif from == 'DEAD_LETTERED' then
    call('ZREM', k_dead, id)
  elseif FINISHED[from] then
    call('ZREM', k_finished, id)
  end
  if job.log_fence and (from == 'DEAD_LETTERED' or FINISHED[from]) then
    call('ZREM', k_logs, id)
  end
end
local function next_order()
  local order = text_of(meta.order + 1)
  keep('order', order)
  return order
end
-- `at_ms` is the due time of SCHEDULED and the deadline of a lease; `fields` go into the record with the status.
local function admit(id, job, to, at_ms, fields, holds_unique)
  if to == 'QUEUED' then
    if not job.order then
      job.order = next_order()
      fields[#fields + 1] = 'order'
      fields[#fields + 1] = job.order
    end
    call('ZADD', k_ready .. job.lane, text_of(BAND[job.priority] * 17592186044416 + job.order), id)
    ring(job.lane, 1)
  elseif to == 'SCHEDULED' then
    call('ZADD', k_scheduled .. job.priority, text_of(at_ms), id)
    ring_at(at_ms)
  elseif leased(to) then
    call('ZADD', k_leased, text_of(at_ms), id)
    if to == 'RUNNING' then
      count('running', 1)
    end
  else
    call('ZADD', to == 'DEAD_LETTERED' and k_dead or k_finished, now_text, id)
    count(string.lower(to), 1)
    tally(string.lower(to))
    if job.log_fence then
      call('ZADD', k_logs, now_text, id)
    end
    if holds_unique then
      call('HDEL', k_unique, job.unique)
    end
  end
  fields[#fields + 1] = 'status'
  fields[#fields + 1] = to
  call('HSET', k_job .. id, unpack(fields))
end
-- The guard comes before the first write, so that a move that is not in the table changes nothing.
local function move(verb, id, job, to, at_ms, fields)
  local pair = verb .. ':' .. job.status .. '>' .. to
  if not MOVES[pair] then
    error('move ' .. pair .. ' is not in the table')
  end
  if job.status == 'CLAIMED' and to == 'RUNNING' then
    count('running', 1)
    fields[#fields + 1] = 'status'
    fields[#fields + 1] = to
    call('HSET', k_job .. id, unpack(fields))
  else
    local holds_unique = job.unique and call('HGET', k_unique, job.unique) == id
    -- Keys of one lane or agent are not among those whose type was checked; one is asked for, the other written first.
    if job.lane ~= 'any' then
      must_be('zset', k_ready .. job.lane)
    end
    if leased(to) then
      call('ZADD', k_held .. job.agent, text_of(at_ms), id)
    end
    leave(id, job)
    admit(id, job, to, at_ms, fields, holds_unique)
  end
  job.status = to
end
