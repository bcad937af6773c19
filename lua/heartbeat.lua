--- Renew leases by the length they were claimed with, and bring word of cancel requests.
---
--- COMMON   now_ms integer 0..9007199254740991 =0 | 0 means the server's clock
--- EACH     job_id name
---          fence integer 1..9007199254740991
---          lease_id text 32..32
---          agent holder
--- BATCH_MAX 100
--- USES     lease run
--- RETURNS  RENEWED lease_ms cancel_mode cancel_grace_ms | STALE_LEASE status | NOT_HOLDER | NOT_FOUND
--- FLAGS    allow-oom
--- COST     O(log n) a job; 3 calls
local function heartbeat(e)
  local job, refused = current(e)
  if not job then
    return refused
  end
  local deadline = text_of(now + int(job.lease_ms))
  call('ZADD', k_held .. job.agent, deadline, e.job_id)
  call('ZADD', k_leased, deadline, e.job_id)
  if not job.confirmed then
    call('HSET', k_job .. e.job_id, 'confirmed', '1')
  end
  return {'RENEWED', job.lease_ms, job.cancel_ms and job.cancel_mode or '', job.cancel_grace_ms or '0'}
end
return run(heartbeat)
