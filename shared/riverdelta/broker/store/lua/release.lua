#!lua flags=allow-oom
-- Release an idle chat, and let all of its keys expire together.
--
-- KEYS  1 head  2 chunks  3 outbox   4.. every other key of the chat
-- ARGV  1 term   2 retention, ms   3 "1": trim raw entries that were processed
-- Returns {released} | {busy} (unread entries, open messages, calls to make) | {refused, term, owner}
local h = redis.call('HMGET', KEYS[1], 'term', 'owner', 'pushed', 'processed', 'open')
-- No owner: it was released before, and the reply was lost.
if h[1] ~= ARGV[1] or (h[2] or '') == '' then return {'refused', h[1] or '', h[2] or ''} end
if h[3] ~= h[4] or (h[5] or '') ~= '' or redis.call('EXISTS', KEYS[3]) == 1 then return {'busy'} end
if ARGV[3] == '1' then
  redis.call('XTRIM', KEYS[2], 'MINID', string.format('%.0f-0', tonumber(h[4]) + 1))
end
redis.call('HSET', KEYS[1], 'owner', '', 'claims', '0')
for k = 1, #KEYS do redis.call('PEXPIRE', KEYS[k], ARGV[2]) end
return {'released'}
