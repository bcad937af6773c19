-- KEYS[3] leased; ARGV: until when, ids.
local renewed = 0
for at = 2, #ARGV do
  if redis.call('ZSCORE', KEYS[3], ARGV[at]) then
    redis.call('ZADD', KEYS[3], ARGV[1], ARGV[at])
    renewed = renewed + 1
  end
end
return renewed
