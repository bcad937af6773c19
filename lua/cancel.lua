--- Cancel jobs: a waiting one at once, a leased one by intent, which its holder learns at its next heartbeat.
---
--- COMMON   now_ms integer 0..9007199254740991 =0 | 0 means the server's clock
--- EACH     job_id name
---          mode graceful/kill
---          grace_ms integer 0..86400000
--- BATCH_MAX 50
--- USES     move run
--- MOVES    cancel:QUEUED>CANCELLED cancel:SCHEDULED>CANCELLED cancel:BLOCKED>CANCELLED
--- RETURNS  CANCELLED | REQUESTED status | TERMINAL status | NOT_FOUND
--- FLAGS    allow-oom
--- COST     O(log n) a job; 5 calls
local function cancel(e)
  local id = e.job_id
  local job = record(id)
  if not job then
    return {'NOT_FOUND'}
  end
  if job.status == 'CANCELLED' then
    return {'CANCELLED'}
  end
  if FINISHED[job.status] or job.status == 'DEAD_LETTERED' then
    return {'TERMINAL', job.status}
  end
  if leased(job.status) then
    -- The first request's time stands; a later kill sharpens a graceful one, and is not taken back.
    if job.cancel_mode ~= 'kill' or e.mode == 'kill' then
      call('HSET', k_job .. id, 'cancel_ms', job.cancel_ms or now_text, 'cancel_mode', e.mode,
        'cancel_grace_ms', text_of(e.grace_ms))
    end
    if not job.cancel_ms then
      event('job.cancel_requested', id, job.status, job.agent, job.attempt)
    end
    return {'REQUESTED', job.status}
  end
  move('cancel', id, job, 'CANCELLED', nil, {'outcome', job.outcome or 'cancelled'})
  event('job.cancelled', id, 'CANCELLED', nil, job.attempt)
  return {'CANCELLED'}
end
return run(cancel)
