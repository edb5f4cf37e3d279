#!lua flags=allow-oom
-- On the queue's Redis: raise a member's heartbeat counter, if it is still listed.
--
-- KEYS  1 members (hash: id -> counter)
-- ARGV  1 id   2 "1": list it (its first beat)
-- Returns {alive, counter} | {buried}   buried: it was declared dead, and has to start anew
if ARGV[2] ~= '1' and redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return {'buried'} end
return {'alive', redis.call('HINCRBY', KEYS[1], ARGV[1], 1)}
