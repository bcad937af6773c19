--- Change the priority of jobs that have not ended; each joins the end of its new level.
---
--- COMMON   now_ms integer 0..9007199254740991 =0 | 0 means the server's clock
--- EACH     job_id name
---          priority CRITICAL/HIGH/NORMAL/LOW
--- BATCH_MAX 50
--- USES     move run
--- RETURNS  CHANGED status | TERMINAL status | NOT_FOUND
--- FLAGS    allow-oom
--- COST     O(log n) a job; 3 calls
local function reprioritise(e)
  local id = e.job_id
  local job = record(id)
  if not job then
    return {'NOT_FOUND'}
  end
  if FINISHED[job.status] or job.status == 'DEAD_LETTERED' then
    return {'TERMINAL', job.status}
  end
  if job.priority == e.priority then
    return {'CHANGED', job.status}
  end
  local due = job.status == 'SCHEDULED' and call('ZSCORE', k_scheduled .. job.priority, id)
  if due then
    call('ZREM', k_scheduled .. job.priority, id)
    call('ZADD', k_scheduled .. e.priority, due, id)
  end
  local fields = {'priority', e.priority}
  if job.order then
    local order = next_order()
    fields[3], fields[4] = 'order', order
    if job.status == 'QUEUED' then
      call('ZADD', k_ready .. job.lane, text_of(BAND[e.priority] * 17592186044416 + order), id)
      ring(job.lane, 1)
    end
  end
  call('HSET', k_job .. id, unpack(fields))
  event('job.priority', id, job.status, job.agent, job.attempt)
  return {'CHANGED', job.status}
end
return run(reprioritise)
