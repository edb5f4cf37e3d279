#!lua flags=allow-oom
-- On the queue's Redis: add chats to the list of a worker. Runs on a full server, too: workers drain the
-- chats that they own, and that makes room.
--
-- KEYS  1 list (set)
-- ARGV  1.. chat ids
-- Returns {listed}
for i = 1, #ARGV do redis.call('SADD', KEYS[1], ARGV[i]) end
return {'listed'}
