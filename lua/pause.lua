--- Stop handing out jobs, or go on; leased work is not touched. The first pause's reason stands until resume.
---
--- COMMON   now_ms integer 0..9007199254740991 =0 | 0 means the server's clock
--- EACH     paused integer 0..1
---          reason text 0..500
---          by text 0..128
--- BATCH_MAX 1
--- USES     open close announce run
--- NEEDS    paused
--- READS    ready lanes
--- RETURNS  PAUSE paused reason by at_ms
--- FLAGS    allow-oom
--- COST     O(lanes); 5 calls and one a lane
local function pause(e)
  need('paused_reason', 'paused_by', 'paused_at_ms')
  if e.paused == 1 and meta.paused ~= '1' then
    keep('paused', '1')
    keep('paused_reason', e.reason)
    keep('paused_by', e.by)
    keep('paused_at_ms', now_text)
    event('queue.paused', '-', 'PAUSED', nil)
    announce()
  elseif e.paused == 0 and meta.paused == '1' then
    local lanes = call('HKEYS', k_lanes)
    lanes[#lanes + 1] = 'any'
    keep('paused', '0')
    keep('paused_reason', '')
    keep('paused_by', e.by)
    keep('paused_at_ms', now_text)
    event('queue.resumed', '-', 'RESUMED', nil)
    announce()
    for _, lane in ipairs(lanes) do
      ring(lane, math.max(1, call('ZCARD', k_ready .. lane)))
    end
  end
  return {'PAUSE', meta.paused or '0', meta.paused_reason or '', meta.paused_by or '', meta.paused_at_ms or '0'}
end
return run(pause)
