--- One page of the audit of a namespace, the newest first.
---
--- COMMON   now_ms integer 0..9007199254740991 =0 | 0 means the server's clock
--- EACH     namespace name
---          before text 0..40 | the entry at which the last page ended; empty: the first page
---          limit integer 1..200
--- BATCH_MAX 1
--- USES     open run
--- READS    audit
--- RETURNS  PAGE entries next
--- FLAGS    no-writes
--- COST     O(limit); 2 calls
local function list_audit(e)
  local found = call('XREVRANGE', k_audit .. e.namespace, e.before == '' and '+' or '(' .. e.before, '-',
    'COUNT', e.limit + 1)
  local page = {}
  for i = 1, math.min(#found, e.limit) do
    page[i] = found[i]
  end
  return {'PAGE', page, #found > e.limit and page[#page][1] or ''}
end
return run(list_audit)
