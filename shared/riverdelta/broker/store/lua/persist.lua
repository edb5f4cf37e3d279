#!lua flags=allow-oom
-- Remove the expiry of a chat's older messages: their chat has an owner again.
--
-- KEYS  1 head   2.. keys of messages and chunks
-- ARGV  1 term
-- Returns {persisted} | {refused, term}
local term = redis.call('HGET', KEYS[1], 'term')
if term ~= ARGV[1] then return {'refused', term or ''} end
for k = 1, #KEYS do redis.call('PERSIST', KEYS[k]) end
return {'persisted'}
