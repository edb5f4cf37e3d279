#!lua flags=allow-oom
-- Release a chat that still has work (SIGTERM); the caller listed it as waiting before. It killed no
-- worker: its count of claims without a commit starts at 0 again.
--
-- KEYS  1 head
-- ARGV  1 term
-- Returns {released} | {refused, term, owner}
local h = redis.call('HMGET', KEYS[1], 'term', 'owner')
if h[1] ~= ARGV[1] then return {'refused', h[1] or '', h[2] or ''} end
redis.call('HSET', KEYS[1], 'owner', '', 'claims', '0')
return {'released'}
