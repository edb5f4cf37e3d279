#!lua
-- Move one dead letter to the end of its chat's raw stream, as a new entry, in one step: repeated, or cut
-- off in the middle, it is stored once. Wakes the owner.
--
-- Only if its message is open: readers get nothing of a message after its end.
-- No allow-oom flag: a full server refuses, as any other push.
--
-- KEYS  1 head  2 chunks  3 dead  4 message  5 wake channel
-- ARGV  1 id of the dead letter   2 message id it is of
-- Returns {requeued, pushed, owner, term}      owner: "" if no worker has the chat
--         {absent}                             it was put back before, or dropped as old
--         {unknown | completed | failed | stopped | stopping}   how its message stands: nothing was done
local head, chunks, dead = KEYS[1], KEYS[2], KEYS[3]
local letter = redis.call('XRANGE', dead, ARGV[1], ARGV[1])[1]
if not letter then return {'absent'} end
local m = redis.call('HMGET', KEYS[4], 'status', 'stop', 'last_at_ms')
if m[1] ~= 'open' then return {m[1] or 'unknown'} end
if (m[2] or '') ~= '' then return {'stopping'} end

local entry = {}
for i = 1, #letter[2], 2 do entry[letter[2][i]] = letter[2][i + 1] end
if entry.message ~= ARGV[2] then return {'absent'} end

local h = redis.call('HMGET', head, 'pushed', 'pushed_bytes', 'owner', 'term', 'open.' .. ARGV[2])
local at = string.match(h[5] or '', '%d+$') or m[3] or '0' -- of its last entry
local pushed, owner = tonumber(h[1]) + 1, h[3] or ''
redis.call('XADD', chunks, pushed,
  'message', entry.message, 'type', entry.type, 'at', at, 'data', entry.data)
redis.call('XDEL', dead, ARGV[1])
redis.call('HSET', head, 'pushed', pushed, 'pushed_bytes', tonumber(h[2] or 0) + #entry.data)
if owner ~= '' then redis.call('SPUBLISH', KEYS[5], '') end
return {'requeued', pushed, owner, h[4] or '0'}
