#!lua
-- Append entries of an open message to its chat's raw stream, each exactly once and in order. Wakes the
-- owner. Safe to repeat.
--
-- The number of the last entry is in the head while the message is open, so that one write has it and the
-- counters. Of a message that has ended, or that an older producer opened, it is in the producers' hash.
--
-- No allow-oom flag: a full server refuses, and the producer waits as for any other back-pressure. Only
-- ends are called with it: messages that cannot end would keep what they hold for ever.
--
-- KEYS  1 head  2 chunks  3 producers  4 message  5 wake channel
-- ARGV  1 producer field "<producer>:<message>"
--       2 message_seq of the first entry: its number within the message (the start is 1)
--       3 message id
--       4 max backlog, entries   5 max backlog, bytes   6 largest wake payload, bytes
--       7.. type, at_ms, data   for each entry
-- Returns {status, last, pushed, processed, owner, term, stop}
--   status  stored | repeat | hole | unknown | ended | stopped | full
--   last    message_seq of the last entry stored for this producer and message
--   owner   "" if no worker has the chat; stop: "" or the reason a reader gave
local head, chunks, producers, message, wake = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local field, first, message_id = ARGV[1], tonumber(ARGV[2]), ARGV[3]
local max_chunks, max_bytes, max_wake = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local FIRST_ENTRY = 7
local ENDS = {['end'] = true, fail = true, stop = true}
local MAX_AHEAD = 64 -- an owner further behind reads the stream anyway

local last_field = 'last.' .. field
local h = redis.call('HMGET', head,
  'pushed', 'processed', 'pushed_bytes', 'processed_bytes', 'owner', 'term', last_field)
local pushed, processed = tonumber(h[1] or 0), tonumber(h[2] or 0)
local pushed_bytes, processed_bytes = tonumber(h[3] or 0), tonumber(h[4] or 0)
local owner, term = h[5] or '', h[6] or '0'
local m = redis.call('HMGET', message, 'status', 'stop')
local status, stop = m[1], m[2] or ''
local in_head = h[7]
local last = tonumber(in_head or redis.call('HGET', producers, field) or 0)

local function reply(word)
  return {word, last, pushed, processed, owner, term, stop}
end

local count = (#ARGV - FIRST_ENTRY + 1) / 3
if first + count - 1 <= last then
  -- Written again: a WAIT behind a repeat needs a write to wait for (durability=replicated).
  if in_head then
    redis.call('HSET', head, last_field, last)
  else
    redis.call('HSET', producers, field, last)
  end
  return reply('repeat')
end
if not status then return reply('unknown') end
if first > last + 1 then return reply('hole') end
if status ~= 'open' then return reply('ended') end
-- An end may always be stored, with any chunks that it brings along whose push is in doubt.
if not ENDS[ARGV[#ARGV - 2]] then
  if stop ~= '' then return reply('stopped') end
  -- A resend (part of it is stored already) is exempt: refusing it would let nothing move on.
  if first == last + 1 and
     (pushed - processed >= max_chunks or pushed_bytes - processed_bytes >= max_bytes) then
    return reply('full')
  end
end

-- Numbers go to Redis as they are: it writes whole ones in full, and XADD reads <n> as <n>-0.
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
if in_head then
  redis.call('HSET', head, 'pushed', pushed, 'pushed_bytes', pushed_bytes + size, last_field, last)
else
  redis.call('HSET', producers, field, last)
  redis.call('HSET', head, 'pushed', pushed, 'pushed_bytes', pushed_bytes + size)
end

if owner ~= '' then
  local payload = travels and size <= max_wake and table.concat(inline) or ''
  redis.call('SPUBLISH', wake, payload)
end
return reply('stored')
