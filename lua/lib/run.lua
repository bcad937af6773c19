--- Runs entries one by one, each protected: what goes wrong in one is its own answer, the others go on.
--- USES     safely
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
