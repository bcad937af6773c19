--- Take jobs in: each becomes claimable now, or later, or is recognised as one that is here already.
---
--- COMMON   now_ms integer 0..9007199254740991 =0 | 0 means the server's clock
---          atomic integer 0..9007199254740991 | 0: each entry for itself; else a number of the call's own: all or none
---          strict integer 0..1 | 1: a taken unique key makes an atomic call fail
--- EACH     job_id name
---          digest text 1..32 | of everything the caller said: same id and digest is the same job
---          spec text 2..1048576 | header line of JSON, newline, payload bytes; opaque here
---          priority CRITICAL/HIGH/NORMAL/LOW =NORMAL
---          lane name =any
---          delay_ms integer 0..31622400000 =0
---          run_at_ms integer 0..9007199254740991 =0 | 0 means none; in the past means now
---          max_attempts integer 1..100 =3
---          retry_base_ms integer 0..3600000 =5000
---          retry_max_ms integer 0..86400000 =300000
---          unique text 0..64
--- BATCH_MAX 50
--- USES     move run
--- NEEDS    seq max_queued
--- MOVES    enqueue:NEW>QUEUED enqueue:NEW>SCHEDULED
--- READS    tombs lanes
--- WRITES   spec: one field a record, deleted with it
--- WRITES   all: one entry a record, deleted with it
--- RETURNS  ENQUEUED status | DUPLICATE status | CONFLICT status | UNIQUE job_id status | FULL limit | NO_LANE | NOT_MADE
--- COST     O(log n) a job; 6 calls
local room
local function full()
  local limit = tonumber(meta.max_queued)
  if limit == 0 then
    return false
  end
  if not room then
    room = limit - call('ZCARD', k_blocked) - call('ZCARD', k_ready .. 'any')
    for _, lane in ipairs(call('HKEYS', k_lanes)) do
      room = room - call('ZCARD', k_ready .. lane)
    end
    for priority in pairs(BAND) do
      room = room - call('ZCARD', k_scheduled .. priority)
    end
  end
  room = room - 1
  return room < 0
end
-- Returns the reply to an entry that makes no job; nil when it will make one.
local function refusal(e)
  local id = e.job_id
  local there = call('HMGET', k_job .. id, 'status', 'digest')
  local status, digest = there[1], there[2]
  if not status then
    local tomb = call('HGET', k_tombs, id)
    if tomb then
      digest, status = string.match(tomb, '^%d+ (%S+) %S+ %S+ (%S+)$')
    end
  end
  if status then
    return {digest == e.digest and 'DUPLICATE' or 'CONFLICT', status}
  end
  if e.lane ~= 'any' and call('HEXISTS', k_lanes, e.lane) == 0 then
    return {'NO_LANE'}
  end
  if e.unique ~= '' then
    local holder = call('HGET', k_unique, e.unique)
    if holder then
      return {'UNIQUE', holder, call('HGET', k_job .. holder, 'status') or 'QUEUED'}
    end
  end
  if full() then
    return {'FULL', meta.max_queued}
  end
  return nil
end
local function enqueue(e)
  local refused = refusal(e)
  if refused then
    return refused
  end

  local id = e.job_id
  local due = e.run_at_ms > 0 and e.run_at_ms or now + e.delay_ms
  local to = due > now and 'SCHEDULED' or 'QUEUED'
  local seq = text_of(meta.seq + 1)
  local job = {status = 'NEW', priority = e.priority, lane = e.lane}
  local fields = {'priority', e.priority, 'lane', e.lane, 'digest', e.digest, 'enqueued_ms', now_text}
  local function unless(field, value, default)
    if value ~= default then
      fields[#fields + 1] = field
      fields[#fields + 1] = value
    end
  end
  unless('max_attempts', e.max_attempts, 3)
  unless('retry_base_ms', e.retry_base_ms, 5000)
  unless('retry_max_ms', e.retry_max_ms, 300000)
  unless('unique', e.unique, '')
  if to == 'SCHEDULED' then
    unless('due_ms', text_of(due))
  end
  move('enqueue', id, job, to, due, fields)
  keep('seq', seq)
  call('HSET', k_spec, id, e.spec)
  call('ZADD', k_all, seq, id)
  if e.unique ~= '' then
    call('HSET', k_unique, e.unique, id)
  end
  count('enqueued', 1)
  event('job.enqueued', id, to)
  return {'ENQUEUED', to}
end
-- What an entry meets that another of the same call will have made.
local by_id, by_key = {}, {}
local function refusal_in_call(e)
  local earlier = by_id[e.job_id]
  if earlier then
    return {earlier.digest == e.digest and 'DUPLICATE' or 'CONFLICT', 'QUEUED'}
  end
  local refused = refusal(e)
  if not refused then
    local holder = e.unique ~= '' and by_key[e.unique]
    if holder then
      return {'UNIQUE', holder, 'QUEUED'}
    end
    by_id[e.job_id], by_key[e.unique] = e, e.job_id
  end
  return refused
end

-- All entries are judged before the first write, as Redis does not roll back.
local function refusals()
  local replies, failed = {}, false
  for i, e in ipairs(entries) do
    local refused = refusal_in_call(e)
    if refused and refused[1] ~= 'DUPLICATE' and (refused[1] ~= 'UNIQUE' or strict == 1) then
      replies[i], failed = refused, true
    else
      replies[i] = {'NOT_MADE'}
    end
  end
  room = nil
  return failed and replies
end
local refused = atomic > 0 and refusals()
if refused then
  return refused
end
return run(enqueue)
