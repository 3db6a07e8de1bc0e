-- Record that a barrier came through a shard's queue. KEYS: 1 whether the queue is drained, 2 the announcement. ARGV: 1
-- the candidate, which must be the one announced: this shows that no data was lost since.
if redis.call('GET', KEYS[2]) ~= ARGV[1] then
    return 0
end
redis.call('DEL', KEYS[2])
redis.call('SET', KEYS[1], 1)
return 1
