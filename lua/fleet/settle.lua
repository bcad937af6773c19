--- A queue was told what it was owed of an agent.
---
--- COMMON   now_ms integer 0..9007199254740991 =0 | 0 means the server's clock
--- EACH     agent name
---          pool name
---          generation integer 1..9007199254740991
---          how give_back/supersede/lose
---          until_ms integer 0..9007199254740991
--- BATCH_MAX 50
--- USES     record owe run
--- MAY_WRITE agent: a field of a record that is there
--- RETURNS  SETTLED
--- FLAGS    allow-oom
--- COST     O(log n) an entry; 3 calls
local function settle(e)
  local left = call('HGET', k_agent .. e.agent, 'left')
  call('ZREM', k_owed, owed(e.agent, e.pool, e.generation, e.how, e.until_ms))
  if left then
    local names = {}
    for name in string.gmatch(left, '%S+') do
      if name ~= e.pool then
        names[#names + 1] = name
      end
    end
    if #names == 0 then
      call('HDEL', k_agent .. e.agent, 'left')
    else
      call('HSET', k_agent .. e.agent, 'left', table.concat(names, ' '))
    end
  end
  return {'SETTLED'}
end
return run(settle)
