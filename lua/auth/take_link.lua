--- Take a one-time login link, once. A wrong secret leaves it where it is.
---
--- COMMON   now_ms integer 0..9007199254740991 =0 | 0 means the server's clock
--- EACH     id name
---          hash text 64..64
--- BATCH_MAX 20
--- USES     open run
--- MAY_WRITE link: one a link that was not taken, an hour at most, by its own time to live
--- RETURNS  TAKEN record | NOT_FOUND
--- FLAGS    allow-oom
--- COST     O(1); 3 calls
local function take_link(e)
  local flat = call('HGETALL', k_link .. e.id)
  local found = fields_of(flat)
  if found.hash ~= e.hash then
    return {'NOT_FOUND'}
  end
  call('DEL', k_link .. e.id)
  if now >= tonumber(found.expires_ms) then
    return {'NOT_FOUND'}
  end
  return {'TAKEN', flat}
end
return run(take_link)
