#!lua
-- Make a producer the writer of an accepted turn: compare-and-set of who writes it, from nobody. Stores an
-- entry that says so to the fold; it is entry 1 of this producer in the message. Safe to repeat.
--
-- No allow-oom flag: a full server refuses, and the producer waits as for any other back-pressure.
--
-- KEYS  1 head  2 chunks  3 message  4 wake channel
-- ARGV  1 producer id   2 message id   3 entry: JSON
-- Returns {status, last, pushed, processed, owner, term, stop}, as push does
--   status  stored | repeat | taken (another producer writes it, or it is no turn)
--           stopped (it was stopped while it waited) | ended | unknown (there is no such message)
local head, chunks, message = KEYS[1], KEYS[2], KEYS[3]
local last_field = 'last.' .. ARGV[1] .. ':' .. ARGV[2]
local h = redis.call('HMGET', head, 'pushed', 'processed', 'pushed_bytes', 'owner', 'term', last_field)
local m = redis.call('HMGET', message, 'status', 'turn', 'adopter', 'stop')
local pushed, owner, stop = tonumber(h[1] or 0), h[4] or '', m[4] or ''

local function reply(status, last)
  return {status, last, pushed, tonumber(h[2] or 0), owner, h[5] or '0', stop}
end

if not m[1] then return reply('unknown', 0) end
if m[1] ~= 'open' then return reply('ended', 0) end
if m[2] == 'over' then return reply(stop ~= '' and 'stopped' or 'ended', 0) end
if m[2] == 'running' and m[3] == ARGV[1] then
  -- Written again: a WAIT behind a repeat needs a write to wait for (durability=replicated).
  redis.call('HSET', head, last_field, h[6])
  return reply('repeat', tonumber(h[6]))
end
if m[2] ~= 'waiting' then return reply('taken', 0) end

pushed = pushed + 1
redis.call('XADD', chunks, pushed, 'message', ARGV[2], 'type', 'adopt', 'at', '0', 'data', ARGV[3])
redis.call('HSET', message, 'turn', 'running', 'adopter', ARGV[1])
redis.call('HSET', head, 'pushed', pushed, 'pushed_bytes', tonumber(h[3] or 0) + #ARGV[3], last_field, 1)
if owner ~= '' then redis.call('SPUBLISH', KEYS[4], '') end
return reply('stored', 1)
