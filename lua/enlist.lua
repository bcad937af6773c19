--- Tell a queue which session of a registered agent is the current one, and take leases from those that are over.
---
--- COMMON   now_ms integer 0..9007199254740991 =0 | 0 means the server's clock
--- EACH     agent name
---          generation integer 1..9007199254740991 | of the session; one older than the queue knows changes nothing
---          capacity integer 0..1000 | leases the agent may hold; 0: it is gone, or belongs to another pool now
---          drain integer 0..1 | 1: it claims nothing more
---          free none/give_back/supersede/lose | which leases go back, and whether they are charged: see `take`
---          until_ms integer 0..9007199254740991 | leases claimed later are spared; 0: none is
--- BATCH_MAX 10
--- USES     give_back run
--- READS    agent
--- WRITES   gone: 10,000 agents, each for 7 days, trimmed by enlist
--- MAY_WRITE agent: one hash an agent that is registered or in `gone`, deleted by enlist when it leaves that
--- WRITES   result: one field a record with a history, at most 32 lines, deleted with the record
--- RETURNS  ENLISTED freed more | SUPERSEDED
--- FLAGS    allow-oom
--- COST     O(log n) a lease; 5 calls an agent, 1 a lease looked at, at most 1,000, and 8 a lease freed, at most 50 a call
local FREE_MAX = 50
local LOOK_MAX = 1000
local GONE_MAX = 10000
local GONE_MS = 604800000
local GONE_STEP = 20
local left = FREE_MAX

-- give_back: those of older sessions, uncharged. lose: all, as if they had run out. supersede: those of older sessions;
-- what such a session had begun and confirmed is lost with it, since work that brings its agent down each time would
-- otherwise go round for ever. Whether the work was to blame nobody can tell: the attempt says that it may have been.
local function take(e, id, job)
  local begun = job.session and job.status == 'RUNNING' and job.confirmed
  if e.free == 'lose' or (e.free == 'supersede' and begun) then
    return lose(id, job)
  end
  return give_back(id, job, 0)
end

-- A lease that knows no session is older than any: its claimer had the agent's name and was not registered.
local function is_over(e, job)
  if not job or not leased(job.status) or job.agent ~= e.agent then
    return false
  end
  local in_time = e.until_ms == 0 or int(job.claimed_ms) <= e.until_ms
  return in_time and (e.free == 'lose' or int(job.session) < e.generation)
end

local function enlist(e)
  local known = call('HMGET', k_agent .. e.agent, 'generation', 'drain', 'capacity')
  if int(known[1]) > e.generation then
    return {'SUPERSEDED'}
  end
  local held = e.free ~= 'none' and call('ZRANGE', k_held .. e.agent, 0, LOOK_MAX - 1) or {}

  call('HSET', k_agent .. e.agent, 'generation', text_of(e.generation), 'capacity', e.capacity, 'drain', e.drain)
  if e.capacity == 0 then
    call('ZADD', k_gone, now_text, e.agent)
  else
    call('ZREM', k_gone, e.agent)
  end
  if known[1] and (int(known[1]) < e.generation or known[2] ~= tostring(e.drain) or known[3] ~= tostring(e.capacity)) then
    -- Its claims that wait would be answered otherwise now, and no job wakes them.
    call('PUBLISH', k_bell, 'agent ' .. e.agent)
  end
  local freed, more = 0, 0
  for _, id in ipairs(held) do
    local job = safely(record, id)
    if is_over(e, job) then
      if left == 0 then
        more = 1
        break
      end
      left = left - 1
      if safely(take, e, id, job) then
        freed = freed + 1
      end
    end
  end
  return {'ENLISTED', freed, more}
end

-- Without its hash an old session of an agent is refused as before, so what goes with it are its figures.
local function forget(names)
  for _, name in ipairs(names) do
    call('DEL', k_agent .. name)
    call('ZREM', k_gone, name)
  end
end
forget(call('ZRANGEBYSCORE', k_gone, '-inf', text_of(now - GONE_MS), 'LIMIT', 0, GONE_STEP))
local surplus = call('ZCARD', k_gone) - GONE_MAX
if surplus > 0 then
  forget(call('ZRANGE', k_gone, 0, math.min(surplus, GONE_STEP) - 1))
end
return run(enlist)
