--- Close a session: its cookie is refused from the next call on.
---
--- COMMON   now_ms integer 0..9007199254740991 =0 | 0 means the server's clock
--- EACH     id name
--- BATCH_MAX 50
--- USES     open run
--- MAY_WRITE session: 50 a person, by its own time to live
--- MAY_WRITE sessions: 50 a person
--- RETURNS  CLOSED | NOT_FOUND
--- FLAGS    allow-oom
--- COST     O(log n); 4 calls
local function close_session(e)
  local person_key = call('HGET', k_session .. e.id, 'person_key')
  if not person_key then
    return {'NOT_FOUND'}
  end
  call('DEL', k_session .. e.id)
  call('ZREM', k_sessions .. person_key, e.id)
  return {'CLOSED'}
end
return run(close_session)
