--- End leases with an outcome: the job is done, waits for another attempt, or is given up. The same call again gets
--- the first answer, also after the job was retried, claimed by another, or trimmed to a tombstone.
---
--- COMMON   now_ms integer 0..9007199254740991 =0 | 0 means the server's clock
--- EACH     job_id name
---          fence integer 1..9007199254740991
---          lease_id text 32..32
---          agent holder
---          outcome success/failed/timeout/infra_error/rejected/cancelled
---          exit_code text 0..11 | a whole number, or empty
---          retryable integer 0..1
---          delay_ms integer 0..31622400000 | of the retry, plus one; 0 means the job's own backoff
---          jitter integer 0..1048575 | a random number, for full jitter: Lua's own is the same in every script
---          failure text 0..16384 | JSON without a line break
---          result text 0..1048576 | JSON without a line break
--- BATCH_MAX 50
--- USES     lease attempts run
--- MOVES    complete:RUNNING>COMPLETED complete:RUNNING>FAILED complete:RUNNING>SCHEDULED complete:RUNNING>QUEUED
--- MOVES    complete:RUNNING>DEAD_LETTERED complete:RUNNING>CANCELLED complete:CLAIMED>FAILED complete:CLAIMED>SCHEDULED
--- MOVES    complete:CLAIMED>QUEUED complete:CLAIMED>DEAD_LETTERED complete:CLAIMED>CANCELLED
--- MAY_WRITE agent: one hash a registered agent, kept and deleted by enlist
--- WRITES   result: one field a record with a history, at most 32 lines, deleted with the record
--- RETURNS  DONE status retry_in_ms | REPLAYED status | OUTCOME_CONFLICT outcome | ILLEGAL status
---          STALE_LEASE status | NOT_HOLDER | NOT_FOUND | MALFORMED
--- FLAGS    allow-oom
--- COST     O(log n) a job; 7 calls, 9 for a registered agent's
local INFRA_FREE = 3
local RECENT = 20
local BEFORE_START = {rejected = true, cancelled = true, infra_error = true}
local WITHOUT_OUTCOME = {lost = true, released = true, ['-'] = true}
local EVENT = {COMPLETED = 'job.completed', FAILED = 'job.failed', DEAD_LETTERED = 'job.dead_lettered',
  CANCELLED = 'job.cancelled', SCHEDULED = 'job.retried', QUEUED = 'job.retried'}

-- A completion whose lease was lost is kept under its attempt as evidence, once, and changes nothing else.
local function note_late(e, text, last)
  if string.sub(text, last - 1, last) == '}]' then
    return
  end
  local note = string.format(',{"late":{"outcome":"%s","at_ms":%.0f,"exit_code":%s,"error":%s}}', e.outcome, now,
    or_null(e.exit_code), or_null(e.failure))
  call('HSET', k_result, e.job_id, string.sub(text, 1, last - 1) .. note .. string.sub(text, last))
  count('late', 1)
end

local function answered_before(e, job, refused)
  if not job then
    local tomb = call('HGET', k_tombs, e.job_id)
    if tomb then
      local fence, outcome, status = string.match(tomb, '^%d+ %S+ (%d+) (%S+) (%S+)$')
      if tonumber(fence) == e.fence and not WITHOUT_OUTCOME[outcome] then
        return outcome == e.outcome and {'REPLAYED', status} or {'OUTCOME_CONFLICT', outcome}
      end
    end
    return refused
  end
  local text = int(job.ended) > 0 and call('HGET', k_result, e.job_id)
  if not text then
    return refused
  end
  local agent, outcome, status, _, last = find_line(text, e.fence)
  if not agent then
    return refused
  elseif not holds(e.agent, agent) then
    return {'NOT_HOLDER'}
  elseif WITHOUT_OUTCOME[outcome] then
    if outcome == 'lost' then
      note_late(e, text, last)
    end
    return refused
  end
  return outcome == e.outcome and {'REPLAYED', status} or {'OUTCOME_CONFLICT', outcome}
end

-- Returns the status to come to, the attempts charged then, and why it is given up.
local function decide(e, job)
  local attempt, outcome = int(job.attempt), e.outcome
  local spent = attempt + (job.status == 'CLAIMED' and 1 or 0)
  if outcome == 'success' then
    return 'COMPLETED', attempt
  elseif job.cancel_ms or outcome == 'cancelled' then
    return 'CANCELLED', attempt
  elseif outcome == 'rejected' then
    return 'FAILED', attempt
  elseif outcome == 'infra_error' and int(job.infra) < INFRA_FREE then
    return 'SCHEDULED', spent - 1
  elseif e.retryable == 0 then
    return 'FAILED', spent
  elseif spent < int(job.max_attempts or 3) then
    return 'SCHEDULED', spent
  end
  return 'DEAD_LETTERED', spent, 'max_attempts'
end

local function backoff_ms(e, job, spent)
  if e.delay_ms > 0 then
    return e.delay_ms - 1
  end
  local most = math.min(int(job.retry_max_ms or 300000), int(job.retry_base_ms or 5000) * 2 ^ math.max(0, spent - 1))
  return math.floor(most * e.jitter / 1048576)
end

-- Runs of a registered agent are counted with it too: how many ended well, how many did not, and how the last ones did.
local function figures_of(job, to)
  if job.session and to ~= 'CANCELLED' then
    local kept = call('HMGET', k_agent .. job.agent, 'generation', 'completed', 'failed', 'recent')
    return kept[1] and kept
  end
  return nil
end

local function keep_figures(agent, figures, well)
  local recent = string.sub((figures[4] or '') .. (well and '+' or '-'), -RECENT)
  call('HSET', k_agent .. agent, well and 'completed' or 'failed', text_of(int(figures[well and 2 or 3]) + 1),
    'recent', recent)
end

local function complete(e)
  local job, refused, stale = current(e)
  if not job then
    return refused[1] == 'NOT_HOLDER' and refused or answered_before(e, stale, refused)
  end
  if job.status == 'CLAIMED' and not BEFORE_START[e.outcome] then
    return {'ILLEGAL', job.status}
  end

  local id, agent, number = e.job_id, job.agent, int(job.attempt)
  local to, spent, reason = decide(e, job)
  local at_ms, wait_ms = nil, 0
  local fields = {'attempt', text_of(spent), 'ended', text_of(int(job.ended) + 1),
    'outcome', e.outcome}
  local function set(field, value)
    fields[#fields + 1] = field
    fields[#fields + 1] = value
  end
  if to == 'SCHEDULED' then
    wait_ms = backoff_ms(e, job, spent)
    at_ms = now + wait_ms
    if wait_ms == 0 then
      to = 'QUEUED'
    end
    set(wait_ms == 0 and 'ready_ms' or 'due_ms', text_of(at_ms))
  end
  if e.outcome == 'infra_error' then
    set('infra', text_of(int(job.infra) + 1))
  end
  if reason then
    set('dead_reason', reason)
  end
  local history = with_line(id, job, attempt_line(job, number, e.outcome, to, e.exit_code, e.failure, e.result))
  local figures = figures_of(job, to)
  local retried = to == 'SCHEDULED' or to == 'QUEUED'
  if retried then
    -- A retried job joins the end of its level: the order number is given anew when it becomes claimable.
    job.order = nil
  end
  move('complete', id, job, to, at_ms, fields)
  if to == 'SCHEDULED' then
    call('HDEL', k_job .. id, 'order')
  end
  call('HSET', k_result, id, history)
  if job.started_ms then
    span('x', now - job.started_ms)
  end
  if figures then
    keep_figures(agent, figures, to == 'COMPLETED')
  end
  if retried then
    count('retried', 1)
  end
  event(EVENT[to], id, to, agent, spent)
  return {'DONE', to, text_of(wait_ms)}
end

local function is_whole(text)
  return text == '' or text == '0' or string.find(text, '^%-?[1-9]%d*$')
end

-- What would break the line of the history is refused; the library sends none such.
local function checked(e)
  if string.find(e.failure, '\n', 1, true) or string.find(e.result, '\n', 1, true) or not is_whole(e.exit_code) then
    return {'MALFORMED'}
  end
  return complete(e)
end
return run(checked)
