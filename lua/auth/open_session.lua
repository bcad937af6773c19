--- Open a person's session. At a login the session that the browser had before ends in the same step.
---
--- COMMON   now_ms integer 0..9007199254740991 =0 | 0 means the server's clock
--- EACH     id name
---          hash text 64..64 | of the cookie's text
---          csrf_hash text 64..64
---          namespace name
---          person text 1..128
---          person_key name | stands for the person in key names
---          grant text 2..16384 | JSON: scopes, pools, services
---          life_ms integer 1..2592000000 | until its end, used or not
---          idle_ms integer 1..2592000000 | until its end, when not used
---          old_id name | the session it takes the place of; 0: none
--- BATCH_MAX 20
--- USES     open run
--- MAY_WRITE session: 50 a person, by its own time to live
--- MAY_WRITE sessions: 50 a person, gone with the last of them
--- RETURNS  OPENED expires_ms
--- COST     O(log n); 8 calls, and 2 for each that ends
local SESSIONS_MAX = 50
local function open_session(e)
  local record, index = k_session .. e.id, k_sessions .. e.person_key
  call('HGET', record, 'hash')
  local old = call('HMGET', k_session .. e.old_id, 'person_key')
  local ended = call('ZRANGEBYSCORE', index, '-inf', now_text, 'LIMIT', 0, SESSIONS_MAX)
  local over = call('ZCARD', index) - #ended - SESSIONS_MAX + 1
  -- The nearest to their end make room: ids follow those that have ended already.
  for i = 0, math.min(over, SESSIONS_MAX) - 1 do
    ended[#ended + 1] = call('ZRANGE', index, #ended, #ended)[1]
  end

  for _, id in ipairs(ended) do
    call('DEL', k_session .. id)
    call('ZREM', index, id)
  end
  if old[1] then
    call('DEL', k_session .. e.old_id)
    call('ZREM', k_sessions .. old[1], e.old_id)
  end
  local expires = text_of(now + e.life_ms)
  call('HSET', record, 'hash', e.hash, 'csrf_hash', e.csrf_hash, 'namespace', e.namespace, 'name', e.person,
    'person_key', e.person_key, 'grant', e.grant, 'idle_ms', text_of(e.idle_ms), 'used_ms', now_text,
    'created_ms', now_text, 'expires_ms', expires)
  call('PEXPIRE', record, e.life_ms)
  call('ZADD', index, expires, e.id)
  if call('PTTL', index) < e.life_ms then
    call('PEXPIRE', index, e.life_ms)
  end
  return {'OPENED', expires}
end
return run(open_session)
