--- Close all sessions of a person.
---
--- COMMON   now_ms integer 0..9007199254740991 =0 | 0 means the server's clock
--- EACH     person_key name
--- BATCH_MAX 1
--- USES     open run
--- MAY_WRITE session: 50 a person, by its own time to live
--- MAY_WRITE sessions: 50 a person
--- RETURNS  CLOSED n
--- FLAGS    allow-oom
--- COST     O(n) of the person's sessions, at most 50; 2 calls and one a session
local SESSIONS_MAX = 50
local function close_sessions(e)
  local ids = call('ZRANGE', k_sessions .. e.person_key, 0, SESSIONS_MAX)
  local closed = 0
  for _, id in ipairs(ids) do
    closed = closed + call('DEL', k_session .. id)
  end
  call('DEL', k_sessions .. e.person_key)
  return {'CLOSED', closed}
end
return run(close_sessions)
