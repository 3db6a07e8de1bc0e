-- An edit or a delete is in the queue for good: lay ARGV[2] over message ARGV[1] until the writer has applied it.
-- ARGV[3] is the channel of those who listen.
if redis.call('HEXISTS', KEYS[1], 'e') == 0 then
    return 0
end
if redis.call('HSET', KEYS[1], 'o:' .. ARGV[1], ARGV[2]) == 1 then
    redis.call('HINCRBY', KEYS[1], 'oc', 1)
end
redis.call('PUBLISH', ARGV[3], ARGV[1])
return 1
