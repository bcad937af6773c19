--- Reads the record of an agent: every field a string, as it stands; nil when there is none.
--- USES     open close
--- READS    agent
local function record(agent)
  local flat = call('HGETALL', k_agent .. agent)
  if #flat == 0 then
    return nil
  end
  local one = {}
  for i = 1, #flat, 2 do
    one[flat[i]] = flat[i + 1]
  end
  return one
end
-- Returns the record when the session is the agent's current one, else nil and the reply that says why not.
local function current(e)
  local one = record(e.agent)
  if not one then
    return nil, {'NOT_REGISTERED'}
  end
  if one.session_id ~= e.session_id or one.ended_ms then
    return nil, {'SUPERSEDED'}
  end
  return one
end
-- How the agent's last runs ended, as the fleet's sum of them needs it: each agent's share is taken out and put in anew.
local function share(one, recent, failed)
  keep('recent', text_of(math.max(0, int(meta.recent) + recent - int(one and one.recent))))
  keep('recent_failed', text_of(math.max(0, int(meta.recent_failed) + failed - int(one and one.recent_failed))))
end
