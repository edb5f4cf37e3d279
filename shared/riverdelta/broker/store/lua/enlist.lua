#!lua flags=allow-oom
-- On the queue's Redis: add members to the list of a worker. A full server takes it too: what workers
-- own is drained, and that makes room.
--
-- KEYS  1 list (set)
-- ARGV  1.. members
-- Returns {listed}
for i = 1, #ARGV do redis.call('SADD', KEYS[1], ARGV[i]) end
return {'listed'}
