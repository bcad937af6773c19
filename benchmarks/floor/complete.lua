-- KEYS[1] jobs, KEYS[3] leased; ARGV: ids.
local done = 0
for at = 1, #ARGV do
  if redis.call('ZREM', KEYS[3], ARGV[at]) == 1 then
    redis.call('HDEL', KEYS[1], ARGV[at])
    done = done + 1
  end
end
return done
