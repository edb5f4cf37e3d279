#!lua
-- Open a message: its start is entry 1 of the message. Makes the chat where there is none. Safe to
-- repeat with the same opener. Refuses, before any write, a user who is not the chat's owner.
--
-- No allow-oom flag: a full server refuses, and the producer waits as for any other back-pressure.
--
-- KEYS  1 head  2 chunks  3 producers  4 message  5 wake channel  6 deltas  7 dead  8 outbox
-- ARGV  1 producer id  2 message id  3 opener: random token of the caller's Message object
--       4 format number v of what is written  5 start: JSON
--       6 user that the message is for: the owner, for good, of a chat made here ("": no user is named,
--         a chat made here has no owner, and the owner of one that exists is not compared)
-- Returns {status, last, pushed, processed, owner, term, stop}, as push does
--   status  stored | repeat | exists (another opener was here: the id is taken)
--           foreign (the chat is another user's, or has no owner; nothing is said of the chat)
local head, chunks, producers, message = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local h = redis.call('HMGET', head, 'pushed', 'processed', 'pushed_bytes', 'owner', 'term', 'user')
local m = redis.call('HMGET', message, 'status', 'opener')
local pushed, owner, term = tonumber(h[1] or 0), h[4] or '', h[5] or '0'
local user = ARGV[6]

if h[1] and user ~= '' and user ~= (h[6] or '') then
  return {'foreign', 0, 0, 0, '', '0', ''}
end

if m[1] then
  local word = m[2] == ARGV[3] and 'repeat' or 'exists'
  -- Written again: a WAIT behind a repeat needs a write to wait for (durability=replicated).
  redis.call('HSET', message, 'status', m[1])
  return {word, 1, pushed, tonumber(h[2] or 0), owner, term, ''}
end

if h[1] then
  -- The chat was released and was to expire.
  for _, key in ipairs({head, chunks, producers, KEYS[6], KEYS[7]}) do redis.call('PERSIST', key) end
else
  -- A chat without a head has expired: delete what is left of it.
  redis.call('DEL', chunks, producers, KEYS[6], KEYS[7], KEYS[8])
  redis.call('HSET', head, 'v', ARGV[4], 'user', user, 'term', '0', 'owner', '',
    'processed', '0', 'processed_bytes', '0')
end
pushed = pushed + 1
redis.call('DEL', message)
redis.call('HSET', message, 'v', ARGV[4], 'status', 'open', 'opener', ARGV[3], 'producer', ARGV[1])
redis.call('XADD', chunks, pushed, 'message', ARGV[2], 'type', 'start', 'at', '0', 'data', ARGV[5])
redis.call('HSET', head, 'pushed', pushed, 'pushed_bytes', tonumber(h[3] or 0) + #ARGV[5],
  'last.' .. ARGV[1] .. ':' .. ARGV[2], 1)
if owner ~= '' then redis.call('SPUBLISH', KEYS[5], '') end
return {'stored', 1, pushed, tonumber(h[2] or 0), owner, term, ''}
