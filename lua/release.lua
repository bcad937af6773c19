--- Hand leases back unfinished: the attempt is given back, the job keeps its place in line.
---
--- COMMON   now_ms integer 0..9007199254740991 =0 | 0 means the server's clock
--- EACH     job_id name
---          fence integer 1..9007199254740991
---          lease_id text 32..32
---          agent holder
---          delay_ms integer 0..31622400000
--- BATCH_MAX 50
--- USES     lease give_back run
--- WRITES   result: one field a record with a history, at most 32 lines, deleted with the record
--- RETURNS  RELEASED status delay_ms | STALE_LEASE status | NOT_HOLDER | NOT_FOUND
--- FLAGS    allow-oom
--- COST     O(log n) a job; 7 calls
local function release(e)
  local job, refused = current(e)
  if not job then
    return refused
  end
  local to, at_ms = give_back(e.job_id, job, e.delay_ms)
  return {'RELEASED', to, text_of(at_ms and at_ms - now or 0)}
end
return run(release)
