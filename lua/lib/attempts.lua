--- The history of a job's leases: one JSON line for each that ended, the last 32 kept, found again by its fence.
--- USES     open record
--- MAY_WRITE result: one field a record with a history, at most 32 lines, deleted with the record
local LINES_MAX = 32
local function or_null(text)
  return (text == nil or text == '') and 'null' or text
end
local function attempt_line(job, number, outcome, status, exit_code, failure, result)
  return string.format('[%d,"%s",%s,%s,%s,%s,"%s","%s",%s,%s,%s]', number, job.agent, job.fence, job.claimed_ms,
    or_null(job.started_ms), now_text, outcome, status, or_null(exit_code), or_null(failure), or_null(result))
end
-- Returns what is to be written; the caller writes it with the rest of its entry.
local function with_line(id, job, line)
  local ended = int(job.ended)
  if ended == 0 then
    return line
  end
  local text = call('HGET', k_result, id) or ''
  if ended >= LINES_MAX then
    text = string.sub(text, (string.find(text, '\n', 1, true) or 0) + 1)
  end
  return text .. '\n' .. line
end
-- Returns agent, outcome, status of the lease with this fence, and where its line begins and ends; nil when unknown.
local function find_line(text, fence)
  local first = 1
  for _ = 1, LINES_MAX do
    local last = string.find(text, '\n', first, true)
    local line = string.sub(text, first, (last or 0) - 1)
    local agent, found, outcome, status =
      string.match(line, '^%[%d+,"([^"]*)",(%d+),%d+,[^,]*,%d+,"([^"]*)","([^"]*)"')
    if found and tonumber(found) == fence then
      return agent, outcome, status, first, last and last - 1 or #text
    end
    if not last then
      return nil
    end
    first = last + 1
  end
  return nil
end
