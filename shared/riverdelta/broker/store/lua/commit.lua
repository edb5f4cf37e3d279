#!lua flags=allow-oom
-- Write the result of a batch of entries in one atomic step: cursor, state, log, publication.
-- Refused if the caller is fenced (term), or built on another state than the stored one (version).
--
-- KEYS  1 head  2 chunks  3 deltas (stream, and channel of the same name)  4 dead  5 producers
--       6.. hashes of messages and chunks to write or delete
-- ARGV  1 term   2 version built on
--       3 raw entries up to this number may go ("0": keep them)
--       4 log: most entries   5 log: first seq to keep   6 seq of the first event
--       7 number of arguments for the head: field, value, ...      then these
--       then count of events,                                      then each event's JSON
--       then count of dead letters,  then  code, detail, message, type, data  for each
--       then count of producer fields to delete,                   then these
--       then count of head fields to delete,                       then these
--       then count of producer fields whose numbers leave the head for KEYS 5, then these
--       then for each of KEYS 6..:
--         "1" when the key is deleted first, "0" when not
--         number of arguments: field, value, ...                   then these
-- Returns {committed, version}  |  {refused, term, version, owner}
local h = redis.call('HMGET', KEYS[1], 'term', 'version', 'owner')
local version = h[2] or '0'
if h[1] ~= ARGV[1] or version ~= ARGV[2] then
  return {'refused', h[1] or '', version, h[3] or ''}
end

-- Numbers go to Redis as they are: it writes whole ones in full, and reads a stream id <n> as <n>-0.
local DEAD_LETTERS_KEPT = 1000
if ARGV[3] ~= '0' then
  redis.call('XTRIM', KEYS[2], 'MINID', '~', tonumber(ARGV[3]) + 1)
end

local i = 7
local function take()
  i = i + 1
  return ARGV[i - 1]
end

local new_version = tonumber(version) + 1
local n = tonumber(take())
redis.call('HSET', KEYS[1], 'version', new_version, 'claims', '0', unpack(ARGV, i, i + n - 1))
i = i + n

local events = tonumber(take())
local first_event = i
i = i + events

for _ = 1, tonumber(take()) do
  redis.call('XADD', KEYS[4], 'MAXLEN', '~', DEAD_LETTERS_KEPT, '*',
    'code', take(), 'detail', take(), 'message', take(), 'type', take(), 'data', take())
end
for _ = 1, tonumber(take()) do redis.call('HDEL', KEYS[5], take()) end
for _ = 1, tonumber(take()) do redis.call('HDEL', KEYS[1], take()) end
for _ = 1, tonumber(take()) do
  local field = take()
  local last = redis.call('HGET', KEYS[1], 'last.' .. field)
  if last then
    redis.call('HSET', KEYS[5], field, last)
    redis.call('HDEL', KEYS[1], 'last.' .. field)
  end
end

for k = 6, #KEYS do
  local fresh, fields = ARGV[i], tonumber(ARGV[i + 1])
  i = i + 2
  if fresh == '1' then redis.call('DEL', KEYS[k]) end
  if fields > 0 then redis.call('HSET', KEYS[k], unpack(ARGV, i, i + fields - 1)) end
  i = i + fields
end

local seq = tonumber(ARGV[6])
for e = 0, events - 1 do
  local event = ARGV[first_event + e]
  redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[4], seq + e, 'event', event)
  redis.call('SPUBLISH', KEYS[3], event)
end
if events > 0 and ARGV[5] ~= '1' then
  redis.call('XTRIM', KEYS[3], 'MINID', '~', ARGV[5] .. '-0')
end
return {'committed', new_version}
