--- Lease the most urgent jobs to agents: one job for each before any gets a second, the first entry first.
---
--- COMMON   now_ms integer 0..9007199254740991 =0 | 0 means the server's clock
---          lanes_version integer 0..9007199254740991 | 0 means: only the lane any, which every agent may take
---          lanes text 3..8192 | ids of the lanes whose requirement the agents meet, joined by commas
--- EACH     agent holder
---          generation integer 0..9007199254740991 | session generation of a registered agent; 0 means none
---          request_id text 0..64
---          fresh integer 0..1 | 1: this request id was never sent before, so it need not be looked for
---          lease_id text 32..32
---          max integer 1..100
---          lease_ms integer 0..3600000 | 0 means as the queue says
---          start integer 0..1 | 1: straight into RUNNING
---          holding text 0..8192 | fences the agent holds, each between commas; empty: not said
--- BATCH_MAX 50
--- USES     upkeep give_back
--- NEEDS    fence upkeep_ms lanes_version paused
--- MOVES    claim:QUEUED>CLAIMED claim:QUEUED>RUNNING
--- READS    agent spec
--- WRITES   agents: the 1,000 agents that claimed last, trimmed by upkeep
--- RETURNS  LEASED jobs | EMPTY more next_due_ms | PAUSED more next_due_ms | DRAINING | SUPERSEDED | LANES_CHANGED version
--- FLAGS    allow-oom
--- COST     O(log n) a job, O(lanes) a call; 7 calls a job
-- Jobs a call, all entries together: the rest is for the next call, so that no script holds the server for 5 ms.
local BUDGET = 50
local LOOK_AHEAD = 16
local UPKEEP_EVERY_MS = 20
local HELD_MAX = 200
local REQUEST_LOOK_MAX = 1000
local UNLISTED_MS = 3000
if lanes_version ~= 0 and lanes_version ~= tonumber(meta.lanes_version) then
  return {'LANES_CHANGED', meta.lanes_version}
end
local function lease_ms_of(e)
  if e.lease_ms > 0 then
    return math.max(1000, e.lease_ms)
  end
  if not meta.lease_ms then
    need('lease_ms')
  end
  return int(meta.lease_ms or 30000)
end

local function lease_reply(id, job, spec, lease_ms)
  return {id, spec, job.fence, job.lease_id, job.agent, job.status, job.priority, job.attempt or '0',
    job.max_attempts or '3', job.deliveries or '1', job.generation or '0', text_of(lease_ms), job.enqueued_ms}
end

local function lease_again(e, id)
  local job = call('HGET', k_job .. id, 'request') == e.request_id and record(id)
  if not job then
    return nil
  end
  local spec = call('HGET', k_spec, id)
  renew_until(id, e.agent, now + int(job.lease_ms))
  return lease_reply(id, job, spec, int(job.lease_ms))
end

-- The same request again: its leases that still live, renewed, since their holder begins with them only now.
local function again(e)
  local jobs = {}
  for _, id in ipairs(call('ZRANGE', k_held .. e.agent, 0, REQUEST_LOOK_MAX - 1)) do
    jobs[#jobs + 1] = safely(lease_again, e, id)
  end
  table.sort(jobs, function(a, b) return tonumber(a[3]) < tonumber(b[3]) end)
  return jobs
end

-- What the agent does not list it never got: those leases go back at once instead of running out.
local function give_back_unlisted(e)
  for _, id in ipairs(call('ZRANGE', k_held .. e.agent, 0, HELD_MAX - 1)) do
    local job = safely(record, id)
    if job and not job.confirmed and now - int(job.claimed_ms) >= UNLISTED_MS
      and not string.find(e.holding, ',' .. job.fence .. ',', 1, true) then
      safely(give_back, id, job, 0)
    end
  end
end

local capacity = {}
local function refusal(e)
  if e.generation > 0 then
    local agent = call('HMGET', k_agent .. e.agent, 'generation', 'drain', 'capacity')
    if tonumber(agent[1] or 0) ~= e.generation then
      return {'SUPERSEDED'}
    end
    if agent[2] == '1' then
      return {'DRAINING'}
    end
    capacity[e.agent] = tonumber(agent[3])
  end
  return nil
end

-- Asked after leases went back, and drawn on by all entries of the agent, so that together they stay within it.
local room = {}
local function room_of(agent)
  if not room[agent] then
    room[agent] = capacity[agent] and capacity[agent] - call('ZCARD', k_held .. agent) or math.huge
  end
  return room[agent]
end

-- The heads of all lanes, merged by rank: the lane any is one range read, others cost one each.
local function heads(n)
  local last = n - 1
  if lanes == 'any' then
    return call('ZRANGE', k_ready .. 'any', 0, last)
  end
  local ranked = {}
  for lane in string.gmatch(lanes, '[^,]+') do
    local found = call('ZRANGE', k_ready .. lane, 0, last, 'WITHSCORES')
    for i = 1, #found, 2 do
      ranked[#ranked + 1] = {id = found[i], rank = tonumber(found[i + 1])}
    end
  end
  table.sort(ranked, function(a, b) return a.rank < b.rank end)
  local ids = {}
  for i = 1, math.min(#ranked, n) do
    ids[i] = ranked[i].id
  end
  return ids
end

local others = {}
local function others_claim(agent)
  if others[agent] == nil then
    local seen = call('ZCOUNT', k_agents, text_of(now - 60000), '+inf')
    others[agent] = seen > (call('ZSCORE', k_agents, agent) and 1 or 0)
  end
  return others[agent]
end

local function lease(e, id, job)
  local fence = text_of(math.max(meta.fence + 1, now * 2048))
  local to = e.start == 1 and 'RUNNING' or 'CLAIMED'
  local lease_ms = lease_ms_of(e)
  job.agent, job.fence, job.lease_id = e.agent, fence, e.lease_id
  job.deliveries = text_of(int(job.deliveries) + 1)
  local fields = {'agent', e.agent, 'fence', fence, 'lease_id', e.lease_id, 'lease_ms', text_of(lease_ms),
    'claimed_ms', now_text, 'deliveries', job.deliveries}
  local function set(field, value)
    fields[#fields + 1] = field
    fields[#fields + 1] = value
  end
  if e.request_id ~= '' then
    set('request', e.request_id)
  end
  if e.generation > 0 then
    set('session', text_of(e.generation))
  end
  if e.start == 1 then
    job.attempt = text_of(int(job.attempt) + 1)
    set('attempt', job.attempt)
    set('started_ms', now_text)
  end
  local spec = call('HGET', k_spec, id) or ''
  keep('fence', fence)
  move('claim', id, job, to, now + lease_ms, fields)
  span('w', now - (job.ready_ms or job.enqueued_ms))
  event('job.claimed', id, to, e.agent, job.attempt)
  return lease_reply(id, job, spec, lease_ms)
end

-- Round by round; a job its last holder gave back or lost is left for another agent, while there is one.
local function share_out(takers)
  local want = 0
  for _, e in ipairs(takers) do
    want = want + math.max(0, math.min(e.max, room_of(e.agent)))
  end
  local cut = want > BUDGET
  want = math.min(BUDGET, want)
  local ids = want > 0 and heads(want) or {}
  -- id -> record, false once it is taken or cannot be read
  local jobs, first, taken, further = {}, 1, 0, false
  local function next_for(e)
    for i = first, #ids do
      local id = ids[i]
      if jobs[id] == nil then
        jobs[id] = safely(record, id) or false
      end
      local job = jobs[id]
      if job and job.status == 'QUEUED'
        and not (job.avoid == e.agent and now < int(job.avoid_until_ms) and others_claim(e.agent)) then
        jobs[id] = false
        return id, job
      end
      if not job and i == first then
        first = first + 1
      end
    end
    -- One was passed over, so more are looked at than are wanted; those that were taken stand in no lane now.
    if #ids == want and not further then
      ids, first, further = heads(want - taken + LOOK_AHEAD), 1, true
      return next_for(e)
    end
    return nil
  end
  local progress = true
  while progress and taken < want do
    progress = false
    for _, e in ipairs(takers) do
      if #e.jobs < e.max and taken < want and room_of(e.agent) > 0 then
        local id, job = next_for(e)
        if id then
          e.jobs[#e.jobs + 1] = safely(lease, e, id, job)
          room[e.agent] = room[e.agent] - 1
          taken = taken + 1
          progress = true
        end
      end
    end
  end
  if cut and taken == want then
    did.more = 1
  end
end

local takers, replies, seen = {}, {}, {}
-- What is asked of agents comes before the first write, so that a foreign key there stops the call whole.
for i, e in ipairs(entries) do
  replies[i] = refusal(e)
  if not replies[i] and (e.generation > 0 or e.fresh == 0 or e.holding ~= '') then
    must_be('zset', k_held .. e.agent)
  end
end
-- A claimer does the upkeep, so no other process is needed for a due or lost job to come back.
if now - meta.upkeep_ms >= UPKEEP_EVERY_MS or now < tonumber(meta.upkeep_ms) then
  upkeep()
end
for i, e in ipairs(entries) do
  if not replies[i] then
    seen[#seen + 1] = now_text
    seen[#seen + 1] = e.agent
    local jobs = (e.request_id ~= '' and e.fresh == 0) and again(e) or {}
    if #jobs > 0 then
      replies[i] = {'LEASED', jobs}
    else
      if e.holding ~= '' then
        give_back_unlisted(e)
      end
      e.jobs, e.index = {}, i
      takers[#takers + 1] = e
    end
  end
end
if #seen > 0 then
  call('ZADD', k_agents, unpack(seen))
end
if meta.paused ~= '1' then
  share_out(takers)
end
local due
for _, e in ipairs(takers) do
  if #e.jobs > 0 then
    replies[e.index] = {'LEASED', e.jobs}
  else
    due = due or next_due()
    replies[e.index] = {meta.paused == '1' and 'PAUSED' or 'EMPTY', did.more, text_of(due)}
  end
end
close()
return replies
