#!lua flags=allow-oom
-- Mark an open message as to be stopped; its producer sees the mark at its next push or check. A turn that
-- waits has no producer: its end is stored here.
--
-- KEYS  1 message  2 head  3 chunks  4 wake channel
-- ARGV  1 reason, not empty   2 message id   3 entry that ends a waiting turn: JSON
--       4 user who must own the chat; without it: whoever does
-- Returns {marked, pushed, processed, owner, term}      owner: "" if no worker has the chat
--         {ended, status} | {absent}
local m = redis.call('HMGET', KEYS[1], 'status', 'turn', 'stop')
if not m[1] then return {'absent'} end
-- Checked here, where it is written: the chat may have begun another life under another user.
if ARGV[4] and redis.call('HGET', KEYS[2], 'user') ~= ARGV[4] then return {'absent'} end
-- A turn that is over has its end in the stream: this one's, if a stop ended it.
if m[1] ~= 'open' or (m[2] == 'over' and not m[3]) then return {'ended', m[1]} end
local first = redis.call('HSETNX', KEYS[1], 'stop', ARGV[1]) == 1
local h = redis.call('HMGET', KEYS[2], 'pushed', 'pushed_bytes', 'processed', 'owner', 'term')
local pushed, owner = tonumber(h[1] or 0), h[4] or ''
if m[2] == 'waiting' and first then
  pushed = pushed + 1
  redis.call('XADD', KEYS[3], pushed, 'message', ARGV[2], 'type', 'stop', 'at', '0', 'data', ARGV[3])
  redis.call('HSET', KEYS[1], 'turn', 'over')
  redis.call('HSET', KEYS[2], 'pushed', pushed, 'pushed_bytes', tonumber(h[2] or 0) + #ARGV[3])
  if owner ~= '' then redis.call('SPUBLISH', KEYS[4], '') end
end
return {'marked', pushed, tonumber(h[3] or 0), owner, h[5] or '0'}
