#!lua flags=allow-oom
-- Note that a call of an observer is about to be tried again; it is still in the chat's outbox.
--
-- KEYS  1 head  2 outbox
-- ARGV  1 term   2 call: field of the outbox   3 what stands there from now on, JSON
-- Returns {noted} | {settled} (it is not there any more) | {refused, term}
local term = redis.call('HGET', KEYS[1], 'term')
if term ~= ARGV[1] then return {'refused', term or ''} end
if redis.call('HEXISTS', KEYS[2], ARGV[2]) == 0 then return {'settled'} end
redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
return {'noted'}
