#!lua flags=no-writes
-- Read a chat as of one seq.
--
-- KEYS  1 head   2.. hashes of messages and chunks, in the caller's order
-- ARGV  none
-- Returns a list of flat field-value lists, one for each key (an absent key gives an empty one)
local result = {}
for k = 1, #KEYS do result[k] = redis.call('HGETALL', KEYS[k]) end
return result
