--- One page of the ids of an index, newest first, of jobs with the wanted status and priority.
---
--- COMMON   now_ms integer 0..9007199254740991 =0 | not used; every verb takes it
---          index all/leased/dead/finished
---          status text 0..16 | empty means any
---          priority text 0..8 | empty means any
---          limit integer 1..200
---          after_score text 0..20 | of the last job of the page before; empty for the first page
---          after_id text 0..64
--- BATCH_MAX 1
--- READS    meta all leased dead finished job
--- RETURNS  PAGE ids cursor_score cursor_id | NO_QUEUE
--- FLAGS    no-writes
--- COST     O(log n + 300); one call a record read, at most 300
local READ_MAX = 300
local call = redis.call
if call('EXISTS', k_meta) == 0 then
  return {'NO_QUEUE'}
end
local keys_of = {all = k_all, leased = k_leased, dead = k_dead, finished = k_finished}
local key = keys_of[index]
local filtered = status ~= '' or priority ~= ''
local found
local many = filtered and READ_MAX or limit
if after_score == '' then
  found = call('ZREVRANGE', key, 0, many - 1, 'WITHSCORES')
else
  -- By place while the last job is still there, so that jobs of one millisecond are not skipped; else by score.
  local rank = call('ZREVRANK', key, after_id)
  if rank then
    found = call('ZREVRANGE', key, rank + 1, rank + many, 'WITHSCORES')
  else
    found = call('ZREVRANGEBYSCORE', key, '(' .. after_score, '-inf', 'WITHSCORES', 'LIMIT', 0, many)
  end
end
local ids, last = {}, #found - 1
for i = 1, #found, 2 do
  local fits = true
  if filtered then
    local job = call('HMGET', k_job .. found[i], 'status', 'priority')
    fits = (status == '' or job[1] == status) and (priority == '' or job[2] == priority)
  end
  if fits then
    ids[#ids + 1] = found[i]
    if #ids == limit then
      last = i
      break
    end
  end
end
if #found < 2 * many and last == #found - 1 then
  return {{'PAGE', ids, '', ''}}
end
return {{'PAGE', ids, found[last + 1], found[last]}}
