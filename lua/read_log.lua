--- A part of the log of each job, and whether there can be more.
---
--- COMMON   now_ms integer 0..9007199254740991 =0 | not used; every verb takes it
--- EACH     job_id name
---          offset integer 0..9007199254740991 | a position in the log as it is stored
---          most integer 1..1048580 | bytes
--- BATCH_MAX 20
--- READS    meta job log
--- RETURNS  LOG status first last missing data | NOT_FOUND
--- FLAGS    no-writes
--- COST     O(bytes); 3 calls a job
local call = redis.call
if call('EXISTS', k_meta) == 0 then
  return {'NO_QUEUE'}
end
local replies = {}
for i, e in ipairs(entries) do
  local job = call('HMGET', k_job .. e.job_id, 'status', 'log_base', 'log_full')
  if not job[1] then
    replies[i] = {'NOT_FOUND'}
  else
    local base = tonumber(job[2] or 0)
    local last = base + call('STRLEN', k_log .. e.job_id)
    local first = math.min(math.max(e.offset, base), last)
    local data = call('GETRANGE', k_log .. e.job_id, first - base, first - base + e.most - 1)
    replies[i] = {'LOG', job[1], string.format('%.0f', first), string.format('%.0f', last),
      (job[2] or job[3]) and '1' or '0', data}
  end
end
return replies
