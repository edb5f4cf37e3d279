#!lua flags=allow-oom
-- On the queue's Redis: remove a dead producer, after its messages were failed. Only if its counter is
-- still the one that it was found dead at.
--
-- KEYS  1 producers (hash: id -> counter)  2 its messages
-- ARGV  1 producer id   2 counter seen
-- Returns {removed} | {alive}
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then return {'alive'} end
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('DEL', KEYS[2])
return {'removed'}
