--- One page of the API keys or the registration keys of a namespace, the newest first.
---
--- COMMON   now_ms integer 0..9007199254740991 =0 | 0 means the server's clock
--- EACH     what key/registration
---          namespace name
---          before integer 0..9007199254740991 | the seq at which the last page ended; 0: the first page
---          limit integer 1..100
--- BATCH_MAX 1
--- USES     open run
--- READS    key keys registration registrations
--- RETURNS  PAGE records next
--- FLAGS    no-writes
--- COST     O(log n + limit); 2 calls and one a key
local function list_keys(e)
  local records, index = k_key, k_keys .. e.namespace
  if e.what == 'registration' then
    records, index = k_registration, k_registrations .. e.namespace
  end
  local below = e.before == 0 and '+inf' or '(' .. text_of(e.before)
  local one_more = e.limit + 1
  local ids = call('ZREVRANGEBYSCORE', index, below, '-inf', 'LIMIT', 0, one_more)
  local page, last = {}, '0'
  for i = 1, math.min(#ids, e.limit) do
    last = call('ZSCORE', index, ids[i])
    local flat = call('HGETALL', records .. ids[i])
    if #flat > 0 then
      page[#page + 1] = {ids[i], flat}
    end
  end
  return {'PAGE', page, #ids > e.limit and last or '0'}
end
return run(list_keys)
