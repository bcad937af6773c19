--- Keep what a login needs when the browser comes back from the provider: the PKCE verifier and the nonce, in clear,
--- for these minutes only. The state itself is hashed.
---
--- COMMON   now_ms integer 0..9007199254740991 =0 | 0 means the server's clock
--- EACH     state_hash name
---          verifier text 1..256
---          nonce text 1..256
---          redirect text 0..2048
---          ttl_ms integer 1..3600000
--- BATCH_MAX 20
--- USES     open run
--- MAY_WRITE login: one a login under way, by its own time to live
--- MAY_WRITE logins: the last 10,000 logins under way, trimmed by begin_login
--- RETURNS  BEGUN
--- COST     O(log n); 6 calls, and 2 for each that ends
local LOGINS_MAX = 10000
local TRIM_MAX = 20
local function begin_login(e)
  local record = k_login .. e.state_hash
  call('HLEN', record)
  local ended = call('ZRANGEBYSCORE', k_logins, '-inf', now_text, 'LIMIT', 0, TRIM_MAX)
  -- The oldest make room: to refuse new ones would let whoever begins many lock everybody out.
  if #ended == 0 and call('ZCARD', k_logins) >= LOGINS_MAX then
    ended = call('ZRANGE', k_logins, 0, 0)
  end

  for _, hash in ipairs(ended) do
    call('DEL', k_login .. hash)
    call('ZREM', k_logins, hash)
  end
  call('HSET', record, 'verifier', e.verifier, 'nonce', e.nonce, 'redirect', e.redirect,
    'expires_ms', text_of(now + e.ttl_ms))
  call('PEXPIRE', record, e.ttl_ms)
  call('ZADD', k_logins, text_of(now + e.ttl_ms), e.state_hash)
  return {'BEGUN'}
end
return run(begin_login)
