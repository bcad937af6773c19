--- Protects one step: what goes wrong in it is counted and logged, and the rest goes on.
--- USES     close
local function reason_of(problem)
  return type(problem) == 'table' and tostring(problem.err) or tostring(problem)
end
-- For steps inside a verb: nil when it went wrong, which the counter in_doubt and `hybridq check` bring to light.
local function safely(step, ...)
  local ok, value = pcall(step, ...)
  if ok then
    return value
  end
  count('in_doubt', 1)
  redis.log(redis.LOG_WARNING, 'hybridq: ' .. reason_of(value))
  return nil
end
