--- Deletes records for good, at most a few hundred at a time.
--- USES     open close logs
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
  local keys = {}
  for i = 1, #ids do
    keys[i] = k_job .. ids[i]
  end
  local logged = call('ZMSCORE', k_logs, unpack(ids))
  for i = 1, #ids do
    if logged[i] then
      forget_log(ids[i])
      keys[#keys + 1] = k_log .. ids[i]
    end
  end
  call('ZREM', index, unpack(ids))
  call('ZREM', k_all, unpack(ids))
  call('HDEL', k_spec, unpack(ids))
  call('HDEL', k_result, unpack(ids))
  call('DEL', unpack(keys))
  count('pruned', #ids)
end
