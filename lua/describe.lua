--- Everything Redis holds of jobs.
---
--- COMMON   now_ms integer 0..9007199254740991 =0 | not used; every verb takes it
--- EACH     job_id name
--- BATCH_MAX 100
--- READS    meta job spec result all leased finished dead
--- RETURNS  JOB record spec result seq deadline_ms finished_ms | NOT_FOUND
--- FLAGS    no-writes
--- COST     O(log n) a job; 5 calls
local call = redis.call
if call('EXISTS', k_meta) == 0 then
  return {'NO_QUEUE'}
end
local replies = {}
for i, e in ipairs(entries) do
  local id = e.job_id
  local flat = call('HGETALL', k_job .. id)
  if #flat == 0 then
    replies[i] = {'NOT_FOUND'}
  else
    replies[i] = {'JOB', flat, call('HGET', k_spec, id) or '', call('HGET', k_result, id) or '',
      call('ZSCORE', k_all, id) or '0', call('ZSCORE', k_leased, id) or '',
      call('ZSCORE', k_finished, id) or call('ZSCORE', k_dead, id) or ''}
  end
end
return replies
