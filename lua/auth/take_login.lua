--- Take what a login left, once.
---
--- COMMON   now_ms integer 0..9007199254740991 =0 | 0 means the server's clock
--- EACH     state_hash name
--- BATCH_MAX 20
--- USES     open run
--- MAY_WRITE login: one a login under way, by its own time to live
--- MAY_WRITE logins: the last 10,000 logins under way
--- RETURNS  TAKEN verifier nonce redirect | NOT_FOUND
--- FLAGS    allow-oom
--- COST     O(log n); 3 calls
local function take_login(e)
  local found = fields_of(call('HGETALL', k_login .. e.state_hash))
  call('ZCARD', k_logins)
  if not found.verifier then
    return {'NOT_FOUND'}
  end
  call('DEL', k_login .. e.state_hash)
  call('ZREM', k_logins, e.state_hash)
  if now >= tonumber(found.expires_ms) then
    return {'NOT_FOUND'}
  end
  return {'TAKEN', found.verifier, found.nonce, found.redirect}
end
return run(take_login)
