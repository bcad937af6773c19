--- Is this the job's current lease, in its holder's hands? Fence and lease id both have to match.
--- USES     move
--- READS    tombs
-- A holder may name itself by its credential alone: what that credential claimed under any name is its own.
local function holds(who, agent)
  return who == agent or string.sub(who, 1, 1) == '@' and string.sub(agent, -#who) == who
end
-- Returns the record, or nil and the reply that says why not.
local function current(e)
  local job = record(e.job_id)
  if not job then
    local tomb = call('HGET', k_tombs, e.job_id)
    if tomb then
      return nil, {'STALE_LEASE', string.match(tomb, '(%S+)$')}
    end
    return nil, {'NOT_FOUND'}
  end
  if not leased(job.status) or tonumber(job.fence) ~= e.fence or job.lease_id ~= e.lease_id then
    return nil, {'STALE_LEASE', job.status}, job
  end
  if not holds(e.agent, job.agent) then
    return nil, {'NOT_HOLDER'}
  end
  return job
end
