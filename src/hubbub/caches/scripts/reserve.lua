-- The next number of the chat KEYS[1]. With an Idempotency-Key, whose field is ARGV[1]: its first number, if it has
-- one; the caller must have looked into the store during the epoch ARGV[2] before it gets a new one, kept with ARGV[3].
local epoch = redis.call('HGET', KEYS[1], 'e')
if not epoch then
    return {'closed'}
end
if ARGV[1] == '' then
    return {'new', epoch, redis.call('HINCRBY', KEYS[1], 'n', 1)}
end
local known = redis.call('HGET', KEYS[1], ARGV[1])
if known then
    return {'known', epoch, known}
end
if ARGV[2] ~= epoch then
    return {'look', epoch}
end
local number = redis.call('HINCRBY', KEYS[1], 'n', 1)
redis.call('HSET', KEYS[1], ARGV[1], number .. ' ' .. ARGV[3])
return {'new', epoch, number}
