#!lua flags=allow-oom
-- Fail a turn that no turns process adopted in time, by the server's clock. Safe to repeat.
--
-- KEYS  1 head  2 chunks  3 message  4 wake channel
-- ARGV  1 message id   2 entry that fails it: JSON
-- Returns {failed, owner, term}     owner: "" if no worker has the chat
--         | {waiting, ms left} | {over} (it does not wait any more)
local m = redis.call('HMGET', KEYS[3], 'status', 'turn', 'turn_wait_until_ms')
if m[1] ~= 'open' or m[2] ~= 'waiting' then return {'over'} end
local time = redis.call('TIME')
local left = tonumber(m[3]) - (time[1] * 1000 + math.floor(time[2] / 1000))
if left > 0 then return {'waiting', left} end
local h = redis.call('HMGET', KEYS[1], 'pushed', 'pushed_bytes', 'owner', 'term')
local pushed, owner = tonumber(h[1]) + 1, h[3] or ''
redis.call('XADD', KEYS[2], pushed, 'message', ARGV[1], 'type', 'fail', 'at', '0', 'data', ARGV[2])
redis.call('HSET', KEYS[3], 'turn', 'over')
redis.call('HSET', KEYS[1], 'pushed', pushed, 'pushed_bytes', tonumber(h[2] or 0) + #ARGV[2])
if owner ~= '' then redis.call('SPUBLISH', KEYS[4], '') end
return {'failed', owner, h[4] or '0'}
