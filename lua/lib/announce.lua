--- Says in the namespace that something about one of its pools changed, so that nobody goes on with what they kept.
--- USES     open
-- A channel is no key, so it may be that of another root; what is said there is a hint, and nothing depends on it.
local function announce()
  call('PUBLISH', 'hq:{' .. string.match(root, '^hq:{([^/]+)/') .. '/sys/queues}:bell', 'changed')
end
