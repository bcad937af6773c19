--- Reads the record of a job: every field a string, as it stands; nil when there is none.
--- USES     open
--- READS    job
local function record(id)
  local flat = call('HGETALL', k_job .. id)
  if #flat == 0 then
    return nil
  end
  local job = {}
  for i = 1, #flat, 2 do
    job[flat[i]] = flat[i + 1]
  end
  return job
end
local function int(text)
  return tonumber(text or 0)
end
