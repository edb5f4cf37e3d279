#!lua
-- Append entries of one message to its chat's raw stream, each exactly once and in order.
-- Opens the message where the first entry is its start. Wakes the owner. Safe to repeat.
--
-- No allow-oom flag: a full server refuses, and the producer waits as for any other back-pressure.
--
-- KEYS  1 head  2 chunks  3 producers  4 message  5 wake channel  6 deltas  7 dead
-- ARGV  1 producer field "<producer>:<message>"
--       2 number of the first entry within the message, from 1
--       3 message id
--       4 opener: random token of the caller's Message object ("" unless entry 1 is the start)
--       5 max backlog, entries   6 max backlog, bytes   7 largest wake payload, bytes
--       8 format number v of what is written
--       9.. type, at_ms, data   for each entry
-- Returns {status, last, pushed, processed, owner, term, stop}
--   status  stored | repeat | hole | exists | unknown | ended | stopped | full
--   last    number of the last entry stored for this producer and message
--   owner   "" when nobody has the chat; stop: "" or the reason a reader gave
local head, chunks, producers, message, wake = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local field, first, message_id, opener = ARGV[1], tonumber(ARGV[2]), ARGV[3], ARGV[4]
local max_chunks, max_bytes, max_wake = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local FIRST_ENTRY = 9
local MAX_AHEAD = 64 -- an owner further behind reads the stream anyway

local h = redis.call('HMGET', head, 'pushed', 'processed', 'pushed_bytes', 'processed_bytes', 'owner', 'term')
local pushed, processed = tonumber(h[1] or 0), tonumber(h[2] or 0)
local pushed_bytes, processed_bytes = tonumber(h[3] or 0), tonumber(h[4] or 0)
local owner, term = h[5] or '', h[6] or '0'
local m = redis.call('HMGET', message, 'status', 'opener', 'stop')
local status, stop = m[1], m[3] or ''
local last = tonumber(redis.call('HGET', producers, field) or 0)

local function reply(word)
  return {word, last, pushed, processed, owner, term, stop}
end

local opens = ARGV[FIRST_ENTRY] == 'start'
local count = (#ARGV - FIRST_ENTRY + 1) / 3
if opens and status then
  if m[2] ~= opener then return reply('exists') end
  opens = false -- a resend, perhaps with more behind it
end
if not opens then
  if first + count - 1 <= last then return reply('repeat') end
  if not status then return reply('unknown') end
  if first > last + 1 then return reply('hole') end
  if status ~= 'open' then return reply('ended') end
  -- An end may always be stored, with any chunks that it brings along whose push is in doubt.
  if ARGV[#ARGV - 2] == 'chunk' then
    if stop ~= '' then return reply('stopped') end
    -- A resend (part of it is stored already) is exempt: refusing it would let nothing move on.
    if first == last + 1 and
       (pushed - processed >= max_chunks or pushed_bytes - processed_bytes >= max_bytes) then
      return reply('full')
    end
  end
end

if opens then
  if not h[1] then
    redis.call('DEL', chunks, producers, KEYS[6], KEYS[7])
    redis.call('HSET', head, 'v', ARGV[8], 'term', '0', 'owner', '', 'processed', '0', 'processed_bytes', '0')
  else
    for i = 1, 3 do redis.call('PERSIST', KEYS[i]) end
    redis.call('PERSIST', KEYS[6])
    redis.call('PERSIST', KEYS[7])
  end
  redis.call('DEL', message)
  redis.call('HSET', message, 'v', ARGV[8], 'status', 'open', 'opener', opener)
  last = 0
end

-- Numbers go to Redis as they are: it spells whole ones in full, and XADD reads <n> as <n>-0.
local skip = last + 1 - first
local unread = pushed + count - skip - processed
-- The quiet path needs no read: the entries travel in the wake, behind the number of their first.
local travels = owner ~= '' and unread <= MAX_AHEAD
local inline, size = {string.format('%.0f\n', pushed + 1)}, 0
for i = FIRST_ENTRY + 3 * skip, #ARGV, 3 do
  local kind, at, data = ARGV[i], ARGV[i + 1], ARGV[i + 2]
  pushed = pushed + 1
  size = size + #data
  redis.call('XADD', chunks, pushed, 'message', message_id, 'type', kind, 'at', at, 'data', data)
  if travels then
    inline[#inline + 1] = string.format('%s %s %s %d\n', message_id, kind, at, #data)
    inline[#inline + 1] = data
  end
end
last = first + count - 1
redis.call('HSET', producers, field, last)
redis.call('HSET', head, 'pushed', pushed, 'pushed_bytes', pushed_bytes + size)

if owner ~= '' then
  local payload = travels and size <= max_wake and table.concat(inline) or ''
  redis.call('SPUBLISH', wake, payload)
end
return reply('stored')
