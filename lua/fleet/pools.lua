--- Every pool that was scaled, with the numbers of agents it should have.
---
--- COMMON   now_ms integer 0..9007199254740991 =0 | not used; every verb takes it
--- BATCH_MAX 1
--- READS    meta pools
--- RETURNS  POOLS scaled
--- FLAGS    no-writes
--- COST     O(pools), at most 10,000; 1 call
return {{'POOLS', redis.call('HGETALL', k_pools)}}
