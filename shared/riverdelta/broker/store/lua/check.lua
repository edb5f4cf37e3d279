#!lua flags=allow-oom
-- Reply as push does, without storing anything; send the wake again, if anything is unread. So a lost
-- wake or a lost write is noticed.
--
-- KEYS  1 head  2 producers  3 message  4 wake channel
-- ARGV  1 producer field "<producer>:<message>"
-- Returns {status, last, pushed, processed, owner, term, stop}
--   status  open | completed | failed | stopped | unknown (the server does not know the message)
local h = redis.call('HMGET', KEYS[1], 'pushed', 'processed', 'owner', 'term', 'last.' .. ARGV[1])
local m = redis.call('HMGET', KEYS[3], 'status', 'stop')
local last = tonumber(h[5] or redis.call('HGET', KEYS[2], ARGV[1]) or 0)
local pushed, processed, owner = tonumber(h[1] or 0), tonumber(h[2] or 0), h[3] or ''
if owner ~= '' and pushed > processed then redis.call('SPUBLISH', KEYS[4], '') end
return {m[1] or 'unknown', last, pushed, processed, owner, h[4] or '0', m[2] or ''}
