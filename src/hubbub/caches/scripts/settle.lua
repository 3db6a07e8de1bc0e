-- A message is in the queue for good: show it, if the epoch ARGV[1] that numbered it lives. ARGV[2] number, ARGV[3] item,
-- ARGV[4] lifetime, ARGV[5] the field of its Idempotency-Key or '',
-- ARGV[6] the channel of those who listen.
if redis.call('HGET', KEYS[1], 'e') ~= ARGV[1] then
    return 0
end
if ARGV[5] ~= '' and redis.call('HEXISTS', KEYS[1], ARGV[5]) == 0 then
    return 1 -- the writer has been here before: what it left is newer
end
redis.call('HSET', KEYS[1], ARGV[2], ARGV[3])
redis.call('PUBLISH', ARGV[6], ARGV[2] .. ' ' .. ARGV[3])
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return 1
