--- Spend one use of a registration key. The same use again, because a reply was lost, costs nothing.
---
--- COMMON   now_ms integer 0..9007199254740991 =0 | 0 means the server's clock
--- EACH     id name
---          hash text 64..64 | of the text that was presented
---          use name | stands for what it is spent on: one agent and boot
--- BATCH_MAX 50
--- USES     open run
--- MAY_WRITE registration: 1,000 a namespace, by its own time to live
--- MAY_WRITE uses: one entry a use, at most 1,000, gone with the key
--- RETURNS  SPENT left again | USED_UP | UNKNOWN | EXPIRED | REVOKED
--- COST     O(1); 6 calls
local function spend(e)
  local record, uses = k_registration .. e.id, k_uses .. e.id
  local found = fields_of(call('HGETALL', record))
  if found.hash ~= e.hash then
    return {'UNKNOWN'}
  end
  if found.revoked_ms then
    return {'REVOKED'}
  end
  if now >= tonumber(found.expires_ms) then
    return {'EXPIRED'}
  end
  local spent = call('HLEN', uses)
  local left = tonumber(found.uses) - spent
  if call('HEXISTS', uses, e.use) == 1 then
    return {'SPENT', left, 1}
  end
  if left <= 0 then
    return {'USED_UP'}
  end

  call('HSET', uses, e.use, now_text)
  call('PEXPIRE', uses, text_of(tonumber(found.expires_ms) - now))
  call('HSET', record, 'spent', text_of(spent + 1), 'used_ms', now_text)
  return {'SPENT', left - 1, 0}
end
return run(spend)
