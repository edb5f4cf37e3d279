#!lua flags=allow-oom
-- Give a chat up although there is more to do (SIGTERM). It was put on the waiting list before. Nobody
-- died of it: claims without a commit count anew.
--
-- KEYS  1 head
-- ARGV  1 term
-- Returns {released} | {refused, term, owner}
local h = redis.call('HMGET', KEYS[1], 'term', 'owner')
if h[1] ~= ARGV[1] then return {'refused', h[1] or '', h[2] or ''} end
redis.call('HSET', KEYS[1], 'owner', '', 'claims', '0')
return {'released'}
