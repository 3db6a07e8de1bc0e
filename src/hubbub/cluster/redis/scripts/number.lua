-- Give the next number of a chat. KEYS: 1 the chat, 2 the entry of an Idempotency-Key, if there is one.
-- With a key, ARGV: 1 the word of the caller's last look into the store ('' when it has not looked), 2 the time of the
-- message, 3 the body's hash, 4 lifetime of the key in ms.
-- Returns {'closed'}, {'new', epoch, number}, {'known', epoch, number, time, hash, told}, or {'look', word}: the caller
-- must look for the key in the store, and if it is not there ask again with that word.
local state = redis.call('HMGET', KEYS[1], 'e', 's')
local epoch = state[1]
if state[2] ~= '1' then
    return {'closed'}
end
if KEYS[2] then
    local known = redis.call('HMGET', KEYS[2], 'e', 'n', 'at', 'h', 'told')
    if known[1] == epoch then
        if not known[5] then
            redis.call('HINCRBY', KEYS[2], 'tries', 1)
        end
        return {'known', epoch, known[2], known[3], known[4], known[5] and 1 or 0}
    end
    -- A key stays in Redis for at least ten minutes after it is stored. So if the caller looked within the last minute,
    -- by the clock of this Redis, and did not find it, then it would be here if it had been stored since.
    local looked_epoch, looked_at = string.match(ARGV[1], '^(%d+):(%d+)$')
    local at = now()
    if looked_epoch ~= epoch or at - tonumber(looked_at) > 60000 then
        return {'look', epoch .. ':' .. string.format('%.0f', at)}
    end
end
local number = redis.call('HINCRBY', KEYS[1], 'n', 1)
redis.call('HSET', KEYS[1], number, '')
if KEYS[2] then
    redis.call('DEL', KEYS[2])
    redis.call('HSET', KEYS[2], 'e', epoch, 'n', number, 'at', ARGV[2], 'h', ARGV[3], 'tries', 1)
    redis.call('PEXPIRE', KEYS[2], ARGV[4])
end
return {'new', epoch, number}
