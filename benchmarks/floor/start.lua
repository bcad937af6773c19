-- KEYS[1] jobs, KEYS[3] leased; ARGV: ids : the least that says of a leased job that it runs.
local started = 0
for at = 1, #ARGV do
  if redis.call('ZSCORE', KEYS[3], ARGV[at]) then
    redis.call('HSET', KEYS[1], ARGV[at] .. ':state', 'r')
    started = started + 1
  end
end
return started
