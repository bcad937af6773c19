--- Delete dead letters for good.
---
--- COMMON   now_ms integer 0..9007199254740991 =0 | 0 means the server's clock
--- EACH     job_id name
--- BATCH_MAX 50
--- USES     erase record run
--- MOVES    purge:DEAD_LETTERED>NEW
--- WRITES   dead: deletes only
--- RETURNS  PURGED | NOT_DEAD status | NOT_FOUND
--- FLAGS    allow-oom
--- COST     O(log n) a job; 6 calls
local function purge(e)
  local job = record(e.job_id)
  if not job then
    return {'NOT_FOUND'}
  end
  if job.status ~= 'DEAD_LETTERED' then
    return {'NOT_DEAD', job.status}
  end
  must_be('string', k_log .. e.job_id)
  erase(k_dead, {e.job_id})
  count('purged', 1)
  event('job.purged', e.job_id, 'DEAD_LETTERED')
  return {'PURGED'}
end
return run(purge)
