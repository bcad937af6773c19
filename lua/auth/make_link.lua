--- Keep a one-time login link: who opens it in time gets a session as this person.
---
--- COMMON   now_ms integer 0..9007199254740991 =0 | 0 means the server's clock
--- EACH     id name
---          hash text 64..64
---          namespace name
---          person text 1..128
---          grant text 2..16384 | JSON: scopes, pools, services
---          ttl_ms integer 1..3600000
--- BATCH_MAX 20
--- USES     open run
--- MAY_WRITE link: one a link that was not taken, an hour at most, by its own time to live
--- RETURNS  MADE expires_ms
--- COST     O(1); 3 calls
local function make_link(e)
  local record = k_link .. e.id
  call('HLEN', record)
  local expires = text_of(now + e.ttl_ms)
  call('HSET', record, 'hash', e.hash, 'namespace', e.namespace, 'name', e.person, 'grant', e.grant,
    'created_ms', now_text, 'expires_ms', expires)
  call('PEXPIRE', record, e.ttl_ms)
  return {'MADE', expires}
end
return run(make_link)
