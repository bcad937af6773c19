--- Deletes records for good, at most a few hundred at a time.
--- USES     open close
--- WRITES   job: deletes only
--- MAY_WRITE spec: one field a record, deleted with it
--- MAY_WRITE result: deletes only
--- WRITES   all: one entry a record, deleted with it
local function erase(index, ids)
  if #ids == 0 then
    return
  end
  must_be('hash', k_spec)
  must_be('hash', k_result)
  local records = {}
  for i = 1, #ids do
    records[i] = k_job .. ids[i]
  end
  call('ZREM', index, unpack(ids))
  call('ZREM', k_all, unpack(ids))
  call('HDEL', k_spec, unpack(ids))
  call('HDEL', k_result, unpack(ids))
  call('DEL', unpack(records))
  count('pruned', #ids)
end
