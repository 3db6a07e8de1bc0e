-- A login is tried: KEYS are what it counts against, ARGV[1] the window in seconds, then the most failures for each.
-- Returns 0, or {which of them is used up, seconds until it is not}. A try counts as failed until it is taken back.
for i = 1, #KEYS do
    if tonumber(redis.call('GET', KEYS[i]) or '0') >= tonumber(ARGV[i + 1]) then
        return {i, redis.call('TTL', KEYS[i])}
    end
end
for i = 1, #KEYS do
    if redis.call('INCR', KEYS[i]) == 1 then
        redis.call('EXPIRE', KEYS[i], ARGV[1])
    end
end
return 0
