-- KEYS[1] jobs, KEYS[2] ready, KEYS[3] leased; ARGV: how many, until when.
local found, reply = redis.call('ZPOPMIN', KEYS[2], ARGV[1]), {}
for at = 1, #found, 2 do
  redis.call('ZADD', KEYS[3], ARGV[2], found[at])
  reply[#reply + 1] = found[at]
  reply[#reply + 1] = redis.call('HGET', KEYS[1], found[at])
end
return reply
