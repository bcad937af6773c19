--- The logs of jobs: how many bytes they are together, and how those of ended jobs are dropped when they are too many.
--- USES     open close safely
--- WRITES   job: fields of records that are there
--- WRITES   logs: one entry an ended job with a log, gone with the log
--- MAY_WRITE log: one string a job with a log; gone with the record, or when the logs of the queue are too many
local LOG_BYTES_MAX = 8388608
local LOGS_BYTES_MAX = 1073741824
local function logs_bytes()
  if not meta.logs_bytes then
    need('logs_bytes')
  end
  return tonumber(meta.logs_bytes or 0)
end
local function logs_bytes_max()
  return tonumber(meta.logs_bytes_max or LOGS_BYTES_MAX)
end
local function count_log_bytes(n)
  keep('logs_bytes', text_of(math.max(0, logs_bytes() + n)))
end
-- Takes the log of an ended job out of the books; the caller deletes it. Returns how long it was.
local function forget_log(id)
  call('ZREM', k_logs, id)
  local bytes = redis.pcall('STRLEN', k_log .. id)
  bytes = type(bytes) == 'number' and bytes or 0
  count_log_bytes(-bytes)
  return bytes
end
-- Positions in a log outlive it: what a job says in a later life comes after what was dropped.
local function drop_log(id)
  local bytes = forget_log(id)
  call('DEL', k_log .. id)
  if call('EXISTS', k_job .. id) == 1 then
    call('HINCRBY', k_job .. id, 'log_base', bytes)
    call('HDEL', k_job .. id, 'log_fence', 'log_sent', 'log_full')
  end
end
-- Makes room for `bytes` more by dropping logs of jobs that ended, the oldest end first, at most `most` of them.
-- Returns whether there is room now.
local function make_log_room(bytes, most)
  for _ = 1, most do
    if logs_bytes() + bytes <= logs_bytes_max() then
      return true
    end
    local oldest = call('ZRANGE', k_logs, 0, 0)[1]
    if not oldest then
      return false
    end
    safely(drop_log, oldest)
    count('logs_dropped', 1)
  end
  return logs_bytes() + bytes <= logs_bytes_max()
end
