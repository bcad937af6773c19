--- One page of the queues of a namespace, by name.
---
--- COMMON   now_ms integer 0..9007199254740991 =0 | not used; every verb takes it
---          after text 0..64 | the last name of the page before; empty for the first page
---          limit integer 1..1000
--- BATCH_MAX 1
--- READS    queues
--- RETURNS  PAGE names
--- FLAGS    no-writes
--- COST     O(n log n) of the queues, at most 10,000; 1 call
local names = redis.call('ZRANGE', k_queues, 0, 10000)
table.sort(names)
local page = {}
for _, name in ipairs(names) do
  if name > after and #page < limit then
    page[#page + 1] = name
  end
end
return {{'PAGE', page}}
