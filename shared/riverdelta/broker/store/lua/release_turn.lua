#!lua
-- Let a turn wait again, of which its producer has stored no chunk yet: another turns process may adopt it.
-- Safe to repeat.
--
-- KEYS  1 head  2 chunks  3 message  4 wake channel
-- ARGV  1 producer id   2 message id   3 entry: JSON; it says to the fold that nobody writes the message
--       4 number of the last entry that the producer stored, which it knows to be no chunk
-- Returns {released, pushed, processed, owner, term} | {refused}
--   refused  it is not this producer's, or more of it is stored than ARGV 4 says, or it is being stopped
local head, chunks, message = KEYS[1], KEYS[2], KEYS[3]
local last_field = 'last.' .. ARGV[1] .. ':' .. ARGV[2]
local h = redis.call('HMGET', head, 'pushed', 'processed', 'pushed_bytes', 'owner', 'term', last_field)
local m = redis.call('HMGET', message, 'status', 'turn', 'adopter', 'stop', 'turn_wait_ms')
if m[1] ~= 'open' or m[2] ~= 'running' or m[3] ~= ARGV[1] or (m[4] or '') ~= '' or h[6] ~= ARGV[4] then
  return {'refused'}
end
local pushed, owner = tonumber(h[1]) + 1, h[4] or ''
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('XADD', chunks, pushed, 'message', ARGV[2], 'type', 'adopt', 'at', '0', 'data', ARGV[3])
redis.call('HSET', message, 'turn', 'waiting', 'adopter', '',
  'turn_wait_until_ms', string.format('%.0f', now + tonumber(m[5] or 0)))
redis.call('HSET', head, 'pushed', pushed, 'pushed_bytes', tonumber(h[3] or 0) + #ARGV[3])
redis.call('HDEL', head, last_field)
if owner ~= '' then redis.call('SPUBLISH', KEYS[4], '') end
return {'released', pushed, tonumber(h[2] or 0), owner, h[5] or '0'}
