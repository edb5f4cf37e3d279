#!lua flags=allow-oom
-- Make a worker the owner of a chat: compare-and-set on the term, which fences all owners before.
-- Starts a new epoch if there is none, if the caller asks for one, or if this is not the server that the
-- last claim saw (it may have lost what it had confirmed). seq goes on.
--
-- KEYS  1 head  2 chunks  3 deltas  4 producers  5 dead
-- ARGV  1 worker id   2 term seen   3 epoch to use if a new one is due
--       4 seq to go on from at least   5 "1": a new epoch is due   6 raw entries to trim: "1" yes
--       7 format number v that the owner writes: the head's is raised to it, so that older ones refuse
-- Returns {claimed, term, claims}    claims: claims since the last commit, this one included; only those
--                                    with unread entries count: only an entry can kill a worker
--         {refused, term, owner}     another worker claimed it, or the chat was never seen at that term
--         {absent}                   the chat does not exist
local h = redis.call('HMGET', KEYS[1], 'term', 'owner', 'epoch', 'seq', 'run_id', 'replid', 'claims', 'processed', 'pushed', 'v')
if not h[1] then return {'absent'} end
if h[1] ~= ARGV[2] then return {'refused', h[1], h[2] or ''} end

local run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)') or ''
local replid = string.match(redis.call('INFO', 'replication'), 'master_replid:(%w+)') or ''
local term = string.format('%.0f', tonumber(h[1]) + 1)
local claims = 0
if h[8] ~= h[9] then claims = tonumber(h[7] or 0) + 1 end
local seq = math.max(tonumber(h[4] or 0), tonumber(ARGV[4]))

-- Trim first: on a full server, this frees memory.
if ARGV[6] == '1' then
  redis.call('XTRIM', KEYS[2], 'MINID', string.format('%.0f-0', tonumber(h[8] or 0) + 1))
end
redis.call('HSET', KEYS[1], 'term', term, 'owner', ARGV[1], 'claims', claims,
  'run_id', run_id, 'replid', replid, 'seq', string.format('%.0f', seq))
if tonumber(h[10] or 0) < tonumber(ARGV[7]) then redis.call('HSET', KEYS[1], 'v', ARGV[7]) end
if not h[3] or ARGV[5] == '1' or h[5] ~= run_id or h[6] ~= replid then
  redis.call('HSET', KEYS[1], 'epoch', ARGV[3])
end
for i = 1, #KEYS do redis.call('PERSIST', KEYS[i]) end
return {'claimed', term, claims}
