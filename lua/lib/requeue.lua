--- What becomes of a lease that ends without an outcome: given back, or lost.
--- USES     move attempts
--- MOVES    reap:CLAIMED>QUEUED reap:CLAIMED>SCHEDULED reap:CLAIMED>DEAD_LETTERED reap:CLAIMED>CANCELLED
--- MOVES    reap:RUNNING>QUEUED reap:RUNNING>SCHEDULED reap:RUNNING>DEAD_LETTERED reap:RUNNING>CANCELLED
local UNSTARTED_MAX = 20
local AVOID_MS_MAX = 60000
-- 0, 1, 2, 4 … 60 seconds: the first loss costs nothing, a lease that is never started ever more.
local function growing_ms(n)
  return n <= 1 and 0 or math.min(AVOID_MS_MAX, 1000 * 2 ^ (n - 2))
end
local function uncharged(job)
  return text_of(math.max(0, int(job.attempt) - (job.status == 'RUNNING' and 1 or 0)))
end
-- Ends the lease of `job` because nobody renewed it. Returns the status it came to.
local function lose(id, job)
  local agent, attempt = job.agent, int(job.attempt)
  local started = job.status == 'RUNNING' and job.confirmed
  local fields = {'outcome', 'lost', 'avoid', agent,
    'avoid_until_ms', text_of(now + growing_ms(2 + int(job.unstarted) + int(job.releases)))}
  local function set(field, value)
    fields[#fields + 1] = field
    fields[#fields + 1] = value
  end
  local to, at_ms, reason = 'QUEUED', nil, nil
  if not started then
    -- Nobody showed that the claim arrived, or the work never began: as if never given, but counted.
    local unstarted = int(job.unstarted) + 1
    set('unstarted', text_of(unstarted))
    set('attempt', uncharged(job))
    if unstarted >= UNSTARTED_MAX then
      to, reason = 'DEAD_LETTERED', 'never_started'
    elseif growing_ms(unstarted) > 0 then
      to, at_ms = 'SCHEDULED', now + growing_ms(unstarted)
    end
  elseif attempt >= int(job.max_attempts or 3) then
    to, reason = 'DEAD_LETTERED', 'lease_lost'
  end
  if job.cancel_ms then
    to, at_ms, reason = 'CANCELLED', nil, nil
  end
  if reason then
    set('dead_reason', reason)
  end
  if to == 'QUEUED' then
    set('ready_ms', now_text)
  elseif at_ms then
    set('due_ms', text_of(at_ms))
  end
  local history
  if job.confirmed then
    history = with_line(id, job, attempt_line(job, attempt, 'lost', to))
    set('ended', text_of(int(job.ended) + 1))
  end
  move('reap', id, job, to, at_ms, fields)
  if history then
    call('HSET', k_result, id, history)
  end
  count('lost_leases', 1)
  event('job.lost', id, to, agent, attempt)
  return to
end
