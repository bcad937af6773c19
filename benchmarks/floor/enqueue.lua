-- KEYS[1] jobs, KEYS[2] ready; ARGV: id, rank, blob, … : the least that a queue with priorities writes.
for at = 1, #ARGV, 3 do
  redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 2])
  redis.call('ZADD', KEYS[2], ARGV[at + 1], ARGV[at])
end
return #ARGV / 3
