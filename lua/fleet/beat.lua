--- An agent is alive: note it, take its figures, and say how soon to beat again.
---
--- COMMON   now_ms integer 0..9007199254740991 =0 | 0 means the server's clock
--- EACH     agent name
---          session_id text 32..32
---          metrics text 0..8192 | JSON; empty: not said, and what was said before stands
---          recent integer 0..20 | how many of its last runs are known
---          recent_failed integer 0..20 | and how many of them did not end well
---          shortest_lease_ms integer 0..3600000 | of the leases it holds; 0 when it holds none
---          jitter integer 0..1048575
--- BATCH_MAX 50
--- USES     watch run
--- RETURNS  BEAT record now_ms resumed_ms recent recent_failed | NOT_REGISTERED | SUPERSEDED
--- FLAGS    allow-oom
--- COST     O(log n) an agent; 4 calls
local function beat(e)
  local one, refused = current(e)
  if not one then
    return refused
  end
  one.heartbeat_ms = text_of(beat_ms(e.jitter, e.shortest_lease_ms))
  local fields = {'heartbeat_ms', one.heartbeat_ms, 'recent', e.recent, 'recent_failed', e.recent_failed}
  if e.metrics ~= '' then
    fields[#fields + 1] = 'metrics'
    fields[#fields + 1] = e.metrics
  end
  share(one, e.recent, e.recent_failed)
  seen(e.agent, one, fields)
  return {'BEAT', call('HGETALL', k_agent .. e.agent), now_text, meta.resumed_ms or '0', meta.recent, meta.recent_failed}
end
return run(beat)
