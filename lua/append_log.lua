--- Append to the log of a job what the holder of its lease says, each byte once.
---
--- COMMON   now_ms integer 0..9007199254740991 =0 | 0 means the server's clock
--- EACH     job_id name
---          fence integer 1..9007199254740991
---          lease_id text 32..32
---          agent holder
---          offset integer 0..9007199254740991 | of the data in what this lease says, in bytes as they were sent
---          sent integer 0..1048576 | bytes of the data as they were sent; others are in it when a secret was taken out
---          data text 0..4194304
--- BATCH_MAX 20
--- USES     lease logs run
--- NEEDS    log_bytes_max logs_bytes logs_bytes_max
--- RETURNS  APPENDED next_offset | OFFSET_GAP expected | STALE_LEASE status | NOT_HOLDER | NOT_FOUND
--- COST     O(bytes) an entry; 6 calls, 6 more at the first of a later attempt, and 7 a log that is dropped to make room, at most 100
local DROP_MAX = 100
-- Room that is kept for the line that says where a log ends.
local LAST_LINE = 96

-- The longest beginning of `data` of at most `most` bytes that does not end inside a character.
local function whole_characters(data, most)
  if #data <= most then
    return data
  end
  local last = math.max(0, most)
  for _ = 1, 3 do
    local following = string.byte(data, last + 1)
    if last == 0 or following < 128 or following > 191 then
      break
    end
    last = last - 1
  end
  return string.sub(data, 1, last)
end

local function ends_a_line(id, text)
  local last = text == '' and call('GETRANGE', k_log .. id, -1, -1) or string.sub(text, -1)
  return last == '' or last == '\n'
end

-- What a later lease says begins with a line of ours, on a line of its own.
local function first_line(id, job)
  local number = int(job.attempt) + (job.status == 'CLAIMED' and 1 or 0)
  return string.format('%s[hybridq] attempt %d, agent %s\n', ends_a_line(id, '') and '' or '\n', number,
    string.match(job.agent, '^[^@]*'))
end

-- Where a log ends for good, so that whoever reads it does not take it for whole.
local function with_last_line(id, text, of, most)
  -- Not all in one format, which would end a text at a NUL.
  return text .. (ends_a_line(id, text) and '' or '\n') ..
    string.format('[hybridq] the log ends here: %s reached %.0f bytes\n', of, most)
end

-- Returns what is to be stored of `data`, and whether nothing is stored after it.
local function fitting(id, job, fence, data)
  local size = call('STRLEN', k_log .. id)
  if tonumber(job.log_fence) ~= fence and (size > 0 or job.log_base) then
    data = first_line(id, job) .. data
  end
  local most = tonumber(meta.log_bytes_max or LOG_BYTES_MAX)
  local left = most - size
  local is_room = make_log_room(math.min(#data + LAST_LINE, left), DROP_MAX)
  local left_of_all = logs_bytes_max() - logs_bytes()
  if not is_room and call('ZCARD', k_logs) > 0 then
    -- There is more to drop, which the next calls do: nothing is lost of a log for others that are on their way out.
    left_of_all = left
  end
  if #data + LAST_LINE <= math.min(left, left_of_all) then
    return data, false
  elseif left_of_all < LAST_LINE then
    return '', true
  elseif left_of_all < left then
    return with_last_line(id, whole_characters(data, left_of_all - LAST_LINE), 'those of this queue', logs_bytes_max()), true
  end
  return with_last_line(id, whole_characters(data, left - LAST_LINE), 'it', most), true
end

-- The latest attempt is what people look for: earlier ones that would leave it less than half of the room go.
local function make_way(id, job)
  if job.log_full or 2 * call('STRLEN', k_log .. id) > tonumber(meta.log_bytes_max or LOG_BYTES_MAX) then
    drop_log(id)
    job.log_base, job.log_full = '1', nil
  end
end

local function append_log(e)
  local job, refused = current(e)
  if not job then
    return refused
  end
  local known = tonumber(job.log_fence) == e.fence and int(job.log_sent) or 0
  local ends = e.offset + e.sent
  if e.offset > known then
    return {'OFFSET_GAP', text_of(known)}
  end
  if e.offset < known and known < ends and e.sent ~= #e.data then
    -- Something was taken out, so where in it the repeat ends cannot be told.
    return {'OFFSET_GAP', text_of(known)}
  end
  must_be('string', k_log .. e.job_id)

  local fields = {}
  local function set(field, value)
    fields[#fields + 1] = field
    fields[#fields + 1] = value
  end
  if not job.confirmed then
    set('confirmed', '1')
  end
  if known < ends then
    if job.log_fence and tonumber(job.log_fence) ~= e.fence then
      make_way(e.job_id, job)
    end
    if not job.log_full then
      local data, is_last = fitting(e.job_id, job, e.fence, string.sub(e.data, known - e.offset + 1))
      if data ~= '' then
        call('APPEND', k_log .. e.job_id, data)
        count_log_bytes(#data)
        count('log_bytes', #data)
      end
      if is_last then
        set('log_full', '1')
      end
    end
    set('log_fence', text_of(e.fence))
    set('log_sent', text_of(ends))
  end
  if #fields > 0 then
    call('HSET', k_job .. e.job_id, unpack(fields))
  end
  return {'APPENDED', text_of(math.max(known, ends))}
end
return run(append_log)
