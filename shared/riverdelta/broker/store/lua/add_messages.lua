#!lua flags=allow-oom
-- On the queue's Redis: list open messages under their producer, and list the producer, if it is not
-- listed, with a counter that only it can raise. If the producer is gone, a reaper finds it dead.
--
-- KEYS  1 producers (hash: id -> counter)  2 the producer's messages
-- ARGV  1 producer id   2… "<chat> <message>", any number
-- Returns {listed}
for at = 2, #ARGV do redis.call('SADD', KEYS[2], ARGV[at]) end
redis.call('HSETNX', KEYS[1], ARGV[1], '0')
return {'listed'}
