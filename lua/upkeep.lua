--- One bounded step of what time brings: reap, promote, trim. Claims do the same; this is for when nobody claims.
---
--- COMMON   now_ms integer 0..9007199254740991 =0 | 0 means the server's clock
--- BATCH_MAX 1
--- USES     upkeep
--- RETURNS  DID requeued dead_lettered promoted trimmed more next_due_ms
--- FLAGS    allow-oom
--- COST     O(k log n), k ≤ 25 leases, 25 jobs, 100 records; about 10 calls a moved job
upkeep()
local due = next_due()
close()
return {{'DID', did.requeued, did.dead_lettered, did.promoted, did.trimmed, did.more, text_of(due)}}
