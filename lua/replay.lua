--- Give ended jobs a new life: same id, fresh attempts, history kept, generation raised.
---
--- COMMON   now_ms integer 0..9007199254740991 =0 | 0 means the server's clock
--- EACH     job_id name
---          only dead/any | dead: dead letters alone; any: also FAILED and CANCELLED
---          move text 0..64 | id of this call: the same again is no second life; empty: not said
--- BATCH_MAX 50
--- USES     move run
--- MOVES    replay:FAILED>QUEUED replay:CANCELLED>QUEUED replay:DEAD_LETTERED>QUEUED
--- RETURNS  REPLAYED status | AGAIN status | NOT_TERMINAL status | UNIQUE_TAKEN job_id | NOT_FOUND
--- COST     O(log n) a job; 7 calls
local function replay(e)
  local id = e.job_id
  local job = record(id)
  if not job then
    return {'NOT_FOUND'}
  end
  if e.move ~= '' and job.moved == e.move then
    return {'AGAIN', job.status}
  end
  if job.status ~= 'DEAD_LETTERED' and (e.only == 'dead' or (job.status ~= 'FAILED' and job.status ~= 'CANCELLED')) then
    return {'NOT_TERMINAL', job.status}
  end
  if job.unique then
    local holder = call('HGET', k_unique, job.unique)
    if holder then
      return {'UNIQUE_TAKEN', holder}
    end
  end
  job.order = nil
  local fields = {'attempt', '0', 'generation', text_of(int(job.generation) + 1), 'ready_ms', now_text}
  if e.move ~= '' then
    fields[7], fields[8] = 'moved', e.move
  end
  move('replay', id, job, 'QUEUED', nil, fields)
  call('HDEL', k_job .. id, 'outcome', 'dead_reason', 'unstarted', 'infra', 'releases', 'avoid', 'avoid_until_ms',
    'due_ms')
  if job.unique then
    call('HSET', k_unique, job.unique, id)
  end
  count('replayed', 1)
  event('job.replayed', id, 'QUEUED')
  return {'REPLAYED', 'QUEUED'}
end
return run(replay)
