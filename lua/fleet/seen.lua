--- An agent is alive, as its claim shows: noted at most once a second, and no new word about beats.
---
--- COMMON   now_ms integer 0..9007199254740991 =0 | 0 means the server's clock
--- EACH     agent name
---          session_id text 32..32
--- BATCH_MAX 50
--- USES     watch run
--- RETURNS  SEEN | RETURNED pool generation capacity draining | NOT_REGISTERED | SUPERSEDED
--- FLAGS    allow-oom
--- COST     O(log n) an agent; 3 calls
local NOTED_EVERY_MS = 1000
local function note(e)
  local one, refused = current(e)
  if not one then
    return refused
  end
  local since = now - int(one.seen_ms)
  if since >= NOTED_EVERY_MS or since < 0 or one.offline_ms then
    seen(e.agent, one, {})
  end
  if one.offline_ms then
    return {'RETURNED', one.pool, one.generation, one.capacity, one.draining or '0'}
  end
  return {'SEEN'}
end
return run(note)
