#!lua flags=allow-oom
-- On the queue's Redis: remove a dead worker, and list its chats as waiting for an owner. Only if its
-- counter is still the one that it was found dead at: of several reapers, one does it, once.
--
-- KEYS  1 workers  2 the worker's chats  3 waiting
-- ARGV  1 worker id   2 counter seen
-- Returns {removed, {chat, ...}} | {alive}
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return {'alive'} end
local chats = redis.call('SMEMBERS', KEYS[2])
for _, chat in ipairs(chats) do redis.call('ZADD', KEYS[3], 'NX', 0, chat) end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('DEL', KEYS[2])
return {'removed', chats}
