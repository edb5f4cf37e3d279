#!lua flags=allow-oom
-- Remove an observer's call from a chat's outbox: it was made, or failed for good. Safe to repeat.
--
-- KEYS  1 head  2 outbox  3 message
-- ARGV  1 term   2 call: field of the outbox   3 field of the message to write ("": none)   4 its value
-- Returns {settled} | {refused, term}
local term = redis.call('HGET', KEYS[1], 'term')
if term ~= ARGV[1] then return {'refused', term or ''} end
redis.call('HDEL', KEYS[2], ARGV[2])
if ARGV[3] ~= '' and redis.call('EXISTS', KEYS[3]) == 1 then
  redis.call('HSET', KEYS[3], ARGV[3], ARGV[4])
end
return {'settled'}
