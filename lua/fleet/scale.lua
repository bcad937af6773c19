--- Say how many agents a pool should have: what is not said stays as it was.
---
--- COMMON   now_ms integer 0..9007199254740991 =0 | 0 means the server's clock
--- EACH     pool name
---          min integer 0..100001 | plus one; 0: not said
---          max integer 0..100001 | plus one; 0: not said
---          target integer 0..100001 | plus one; 0: not said
--- BATCH_MAX 10
--- USES     announce run
--- WRITES   pools: one field a pool that was scaled, at most 10,000
--- RETURNS  SCALED min max target | CONTRADICTION min max target | FULL limit
--- FLAGS    allow-oom
--- COST     O(1) a pool; 4 calls
local POOLS_MAX = 10000
local MOST = 100000
local function said(number, before)
  return number > 0 and text_of(number - 1) or before
end
local function scale(e)
  local kept = call('HGET', k_pools, e.pool)
  if not kept and call('HLEN', k_pools) >= POOLS_MAX then
    return {'FULL', POOLS_MAX}
  end
  local min, max, target = string.match(kept or '- - -', '^(%S+) (%S+) (%S+)$')
  min, max, target = said(e.min, min), said(e.max, max), said(e.target, target)
  local low, high = tonumber(min) or 0, tonumber(max) or MOST
  local wanted = tonumber(target) or low
  if low > high or wanted < low or wanted > high then
    return {'CONTRADICTION', min, max, target}
  end
  found()
  call('HSET', k_pools, e.pool, min .. ' ' .. max .. ' ' .. target)
  announce()
  return {'SCALED', min, max, target}
end
return run(scale)
