--- A lease handed back by its holder, or by the agent's own word that it does not hold it: uncharged, at its old place.
--- USES     requeue
--- MOVES    release:CLAIMED>QUEUED release:CLAIMED>SCHEDULED release:CLAIMED>CANCELLED
--- MOVES    release:RUNNING>QUEUED release:RUNNING>SCHEDULED release:RUNNING>CANCELLED
-- Returns the status the job came to, and its due time when it is SCHEDULED.
local function give_back(id, job, delay_ms)
  local agent, releases = job.agent, int(job.releases) + 1
  local to, at_ms = 'QUEUED', nil
  if job.cancel_ms then
    to = 'CANCELLED'
  elseif delay_ms > 0 then
    to, at_ms = 'SCHEDULED', now + delay_ms
  end
  local attempt = uncharged(job)
  local fields = {'outcome', 'released', 'releases', text_of(releases), 'attempt', attempt,
    'avoid', agent, 'avoid_until_ms', text_of(now + growing_ms(1 + releases)),
    at_ms and 'due_ms' or 'ready_ms', text_of(at_ms or now)}
  local history
  if job.confirmed then
    history = with_line(id, job, attempt_line(job, int(job.attempt), 'released', to))
    fields[#fields + 1] = 'ended'
    fields[#fields + 1] = text_of(int(job.ended) + 1)
  end
  move('release', id, job, to, at_ms, fields)
  if history then
    call('HSET', k_result, id, history)
  end
  count('released', 1)
  event('job.released', id, to, agent, attempt)
  return to, at_ms
end
