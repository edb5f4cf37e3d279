#!lua
-- List a chat under its user, as active now, and announce it. Removes chats without a new message for
-- as long as chats are kept. Safe to repeat.
--
-- KEYS  1 list (sorted set: chat -> last activity, Unix milliseconds), and channel of the same name
-- ARGV  1 chat   2 announcement   3 how long chats are kept, milliseconds
-- Returns {listed}
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', string.format('(%.0f', now - tonumber(ARGV[3])))
redis.call('ZADD', KEYS[1], string.format('%.0f', now), ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
redis.call('SPUBLISH', KEYS[1], ARGV[2])
return {'listed'}
