--- Runs entries one by one, each protected: what goes wrong in one is its own answer, the others go on.
--- USES     open
local function run(verb)
  local replies = {}
  for i, e in ipairs(entries) do
    local ok, reply = pcall(verb, e)
    if not ok then
      reply = {'IN_DOUBT', type(reply) == 'table' and tostring(reply.err) or tostring(reply)}
    end
    replies[i] = reply
  end
  return replies
end
