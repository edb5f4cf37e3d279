#!lua
-- Accept a turn: store the start of its message, which no producer writes yet. Readers see it at once; a
-- turns process adopts it later (adopt.lua). Makes the chat where there is none. Safe to repeat: the id says
-- which turn it is. All checks come before the first write, so a refusal leaves nothing.
--
-- No allow-oom flag: a full server refuses.
--
-- KEYS  1 head  2 chunks  3 producers  4 message  5 wake channel  6 deltas  7 dead  8 outbox
--       9.. messages of the turns in ARGV 6, in that order
-- ARGV  1 message id   2 format number v of what is written   3 user who asks
--       4 start: JSON   5 policy while other turns are open: queue | reject | interrupt
--       6 turns that the caller knows to be accepted: ids with a space between, as the head has them
--       7 ids of the messages that it replaces: a space before and behind each ("": none); not waited for
--       8 how long it may wait for a turns process, ms   9 most turns that may be open before it
--       10 "1": a chat that does not exist is begun
--       11 interrupt: reason of the stop   12 interrupt: entry that ends a waiting turn, JSON
-- Returns {status, behind, pushed, processed, owner, term}
--   status  accepted | repeat (it is open) | ended (it was accepted and is over)
--           moved (ARGV 6 is not what the head has; behind: what it has)
--           foreign (the chat is another user's, or does not exist) | busy (policy reject) | full
--   behind  open turns before it, which end first: ids with a space between
--   owner   "" if no worker has the chat
local head, chunks, producers, message, wake = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local id, user, start, policy, known, replaced = ARGV[1], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local FIRST_TURN = 9
local h = redis.call('HMGET', head, 'pushed', 'processed', 'pushed_bytes', 'owner', 'term', 'user', 'turns')
local pushed, processed, bytes = tonumber(h[1] or 0), tonumber(h[2] or 0), tonumber(h[3] or 0)
local owner, term = h[4] or '', h[5] or '0'

local function reply(status, behind)
  return {status, behind or '', pushed, processed, owner, term}
end

if not h[5] and ARGV[10] ~= '1' then return {'foreign', '', 0, 0, '', '0'} end
if h[5] and user ~= (h[6] or '') then return {'foreign', '', 0, 0, '', '0'} end
if h[5] then
  local m = redis.call('HMGET', message, 'status', 'turn', 'behind')
  if m[1] == 'open' and m[2] and m[2] ~= 'over' then
    redis.call('HSET', message, 'turn', m[2]) -- a WAIT behind a repeat needs a write to wait for
    return reply('repeat', m[3])
  end
  if m[1] then return reply('ended') end
  if (h[7] or '') ~= known then return reply('moved', h[7] or '') end
end

local open, waiting = {}, {}
local k = FIRST_TURN
for turn in string.gmatch(h[5] and known or '', '%S+') do
  local m = redis.call('HMGET', KEYS[k], 'status', 'turn')
  if m[1] == 'open' and m[2] ~= 'over' and not string.find(replaced, ' ' .. turn .. ' ', 1, true) then
    open[#open + 1] = turn
    if policy == 'interrupt' then waiting[#waiting + 1] = {KEYS[k], turn, m[2] == 'waiting'} end
  end
  k = k + 1
end
if #open > 0 and policy == 'reject' then return reply('busy') end
if #open >= tonumber(ARGV[9]) then return reply('full') end

local function store(of, type, data)
  pushed, bytes = pushed + 1, bytes + #data
  redis.call('XADD', chunks, pushed, 'message', of, 'type', type, 'at', '0', 'data', data)
end

if h[5] then
  -- The chat was released and was to expire.
  for _, key in ipairs({head, chunks, producers, KEYS[6], KEYS[7]}) do redis.call('PERSIST', key) end
else
  -- A chat without a head has expired: delete what is left of it.
  redis.call('DEL', chunks, producers, message, KEYS[6], KEYS[7], KEYS[8])
  redis.call('HSET', head, 'v', ARGV[2], 'user', user, 'term', '0', 'owner', '',
    'processed', '0', 'processed_bytes', '0')
end
for _, turn in ipairs(waiting) do
  if redis.call('HSETNX', turn[1], 'stop', ARGV[11]) == 1 and turn[3] then
    redis.call('HSET', turn[1], 'turn', 'over')
    store(turn[2], 'stop', ARGV[12])
  end
end
local behind = table.concat(open, ' ')
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSET', message, 'v', ARGV[2], 'status', 'open', 'opener', '', 'producer', '',
  'turn', 'waiting', 'turn_wait_ms', ARGV[8], 'behind', behind,
  'turn_wait_until_ms', string.format('%.0f', now + tonumber(ARGV[8])))
store(id, 'start', start)
open[#open + 1] = id
redis.call('HSET', head, 'pushed', pushed, 'pushed_bytes', bytes, 'turns', table.concat(open, ' '))
if owner ~= '' then redis.call('SPUBLISH', wake, '') end
return reply('accepted', behind)
