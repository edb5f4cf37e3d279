#!lua flags=allow-oom
-- Mark an open message as to be stopped; its producer sees the mark at its next push or check.
--
-- KEYS  1 message
-- ARGV  1 reason, not empty
-- Returns {marked} | {ended, status} | {absent}
local status = redis.call('HGET', KEYS[1], 'status')
if not status then return {'absent'} end
if status ~= 'open' then return {'ended', status} end
redis.call('HSETNX', KEYS[1], 'stop', ARGV[1])
return {'marked'}
