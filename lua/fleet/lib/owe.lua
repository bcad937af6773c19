--- What queues have yet to be told of an agent: kept until they were, so that nobody's end in between matters.
--- USES     open
--- WRITES   owed: one entry a pool that has yet to be told, gone when it was
-- `how` is give_back, supersede or lose (see enlist), `until_ms` when an agent was found OFFLINE: what it claimed later is its own again.
local function owed(agent, pool, generation, how, until_ms)
  return agent .. ' ' .. pool .. ' ' .. text_of(generation) .. ' ' .. how .. ' ' .. text_of(until_ms)
end
local function owe(due_ms, ...)
  call('ZADD', k_owed, text_of(due_ms), owed(...))
end
