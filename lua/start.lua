--- Begin the work of a lease: the attempt is charged. The same lease again is no second start.
---
--- COMMON   now_ms integer 0..9007199254740991 =0 | 0 means the server's clock
--- EACH     job_id name
---          fence integer 1..9007199254740991
---          lease_id text 32..32
---          agent holder
--- BATCH_MAX 50
--- USES     lease run
--- MOVES    start:CLAIMED>RUNNING start:CLAIMED>CANCELLED
--- RETURNS  STARTED attempt | CANCELLED | STALE_LEASE status | NOT_HOLDER | NOT_FOUND
--- FLAGS    allow-oom
--- COST     O(log n) a job; 2 calls
local function start(e)
  local job, refused = current(e)
  if not job then
    return refused
  end
  if job.status == 'RUNNING' then
    call('HSET', k_job .. e.job_id, 'confirmed', '1')
    return {'STARTED', job.attempt}
  end
  if job.cancel_ms then
    move('start', e.job_id, job, 'CANCELLED', nil, {'outcome', 'cancelled'})
    event('job.cancelled', e.job_id, 'CANCELLED', job.agent, job.attempt)
    return {'CANCELLED'}
  end
  local attempt = text_of(int(job.attempt) + 1)
  move('start', e.job_id, job, 'RUNNING', nil,
    {'attempt', attempt, 'started_ms', now_text, 'confirmed', '1'})
  event('job.started', e.job_id, 'RUNNING', job.agent, attempt)
  return {'STARTED', attempt}
end
return run(start)
