--- Runs entries one by one, each protected: what goes wrong in one is its own answer, the others go on.
--- USES     open close
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
local function run(verb)
  local replies = {}
  for i, e in ipairs(entries) do
    local ok, reply = pcall(verb, e)
    if not ok then
      count('in_doubt', 1)
      reply = {'IN_DOUBT', reason_of(reply)}
    end
    replies[i] = reply
  end
  close()
  return replies
end
