--- Write lines into the audit of a namespace.
---
--- COMMON   now_ms integer 0..9007199254740991 =0 | not used: an entry has the time the server gave it
--- EACH     namespace name
---          actor text 0..128
---          action text 1..64
---          object text 0..256
---          outcome text 0..64
---          request_id text 0..128
--- BATCH_MAX 100
--- USES     open run audit
--- RETURNS  NOTED id
--- FLAGS    allow-oom
--- COST     O(1); 2 calls
local function note_audit(e)
  return {'NOTED', audit(e.namespace, e.actor, e.action, e.object, e.outcome, e.request_id)}
end
return run(note_audit)
