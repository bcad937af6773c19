--- An agent's renewal tokens: one family for each agent and boot, whose record is also what its agent tokens stand on.
---
--- A family knows the hash of its `current` token, of the `previous` one, of the one that was `replaced` because its
--- reply was lost (it was made and never seen), and of the last tokens before those (`spent`). What was accepted for
--- the last time and comes again is in two hands: nobody can tell whose, so the family ends for both.
---
--- USES     open audit
--- READS    renewal
--- MAY_WRITE renewal: one for each agent and boot, 7 days after its last token, by its own time to live
--- MAY_WRITE family_of: one an agent, as renewal
local SPENT_MAX = 16
-- How the family knows a hash: 'current', 'previous', 'reused', or nil when it does not.
local function standing(family, hash)
  if hash == family.current then
    return 'current'
  end
  if hash == family.previous then
    return family.previous_spent == '1' and 'reused' or 'previous'
  end
  if hash == family.replaced or string.find(family.spent or '', hash, 1, true) then
    return 'reused'
  end
  return nil
end
-- The family's record stays until its time is over: the tokens that stand on it find out why they are refused.
local function end_family(id, family, why)
  call('HSET', k_renewal .. id, 'revoked_ms', now_text, 'revoked_why', why)
  local name = k_family_of .. family.namespace .. '/' .. family.agent_id
  if call('GET', name) == id then
    call('DEL', name)
  end
end
local function end_reused(id, family)
  end_family(id, family, 'reused')
  audit(family.namespace, 'agent:' .. family.agent_id, 'renewal.reused', id, 'revoked', '')
end
-- The current token becomes the previous one, accepted once more should the reply to this call be lost.
local function rotated(family, hash)
  local spent = (family.previous or '') .. (family.spent or '')
  return {'current', hash, 'previous', family.current, 'previous_spent', '0', 'spent', string.sub(spent, 1, 64 * SPENT_MAX)}
end
