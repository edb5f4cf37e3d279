#!lua
-- Take one token out of a bucket that refills with time: a rate limit over all processes, on the
-- server's clock.
--
-- KEYS  1 bucket
-- ARGV  1 tokens it holds when full   2 tokens that come in per second
-- Returns {taken}
--         {empty, milliseconds until there is one}
local full, per_s = tonumber(ARGV[1]), tonumber(ARGV[2])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local b = redis.call('HMGET', KEYS[1], 'tokens', 'at')
local tokens = tonumber(b[1] or full)
-- A clock that was set back adds no tokens and removes none.
tokens = math.min(full, tokens + math.max(0, now - tonumber(b[2] or now)) * per_s / 1000)
local reply = {'taken'}
if tokens >= 1 then
  tokens = tokens - 1
else
  reply = {'empty', math.ceil((1 - tokens) / per_s * 1000)}
end
redis.call('HSET', KEYS[1], 'tokens', string.format('%.6f', tokens), 'at', string.format('%.0f', now))
-- By then the bucket is full, and a missing bucket counts as full.
redis.call('PEXPIRE', KEYS[1], math.ceil(full / per_s * 1000))
return reply
