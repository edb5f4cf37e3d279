#!lua flags=allow-oom
-- Store one more try of an observer's call that is still in the chat's outbox.
--
-- KEYS  1 head  2 outbox
-- ARGV  1 term   2 call: field of the outbox   3 the field's new value, JSON
-- Returns {noted} | {settled} (it is no longer there) | {refused, term}
local term = redis.call('HGET', KEYS[1], 'term')
if term ~= ARGV[1] then return {'refused', term or ''} end
if redis.call('HEXISTS', KEYS[2], ARGV[2]) == 0 then return {'settled'} end
redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
return {'noted'}
