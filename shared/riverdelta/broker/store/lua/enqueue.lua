#!lua flags=allow-oom
-- On the queue's Redis: list a chat as waiting for an owner, and enqueue an attach job for it in arq's
-- own format, unless a job of that id exists. Runs on a full server, too: a chat without an owner is
-- never drained.
--
-- KEYS  1 waiting  2 arq queue  3 arq job key  4 arq result key  5 arq in-progress key
-- ARGV  1 chat id   2 attempt   3 job id   4 score, Unix ms in the past   5 job's life, ms   6 job
-- Returns {enqueued} | {present}
redis.call('ZADD', KEYS[1], 'GT', ARGV[2], ARGV[1])
if redis.call('EXISTS', KEYS[3], KEYS[4], KEYS[5]) > 0 then return {'present'} end
redis.call('PSETEX', KEYS[3], ARGV[5], ARGV[6])
redis.call('ZADD', KEYS[2], ARGV[4], ARGV[3])
return {'enqueued'}
