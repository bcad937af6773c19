--- Writes an agent token that stands on a family: it is valid as long as both are.
--- USES     open family
--- MAY_WRITE agent_token: one a token, an hour at most, by its own time to live
local function write_token(id, hash, family_id, ttl_ms)
  local expires = text_of(now + ttl_ms)
  call('HSET', k_agent_token .. id, 'hash', hash, 'family', family_id, 'expires_ms', expires, 'created_ms', now_text)
  call('PEXPIRE', k_agent_token .. id, ttl_ms)
  return expires
end
