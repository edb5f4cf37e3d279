#!lua flags=allow-oom
-- On the queue's Redis: raise a member's heartbeat counter, if it is still listed.
--
-- KEYS  1 members (hash: id -> counter)
-- ARGV  1 id   2 "1": list it (its first beat)
-- Returns {alive, counter} | {removed}   removed: it was declared dead, and has to register again
if ARGV[2] ~= '1' and redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then return {'removed'} end
return {'alive', redis.call('HINCRBY', KEYS[1], ARGV[1], 1)}
