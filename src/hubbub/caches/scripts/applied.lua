-- The store has these, at its position ARGV[2]. ARGV[1] is the chat's new floor (0: as it is); then threes of a kind
-- and two words:
--   p number item    a post          k field ''     its Idempotency-Key
--   e number op      an edit         d number op    a delete
--   t number ''      stored so long ago that the store's lists have it
--   r number item    as the store has it now ('' when it has it no more)
-- Returns the numbers that must be read from the store, as nothing here says what they are now.
if redis.call('HEXISTS', KEYS[1], 'e') == 0 then
    return {}
end
local floor, unknown = tonumber(redis.call('HGET', KEYS[1], 'f')), {}

local function uncover(number, op)
    local over = redis.call('HGET', KEYS[1], 'o:' .. number)
    if over and string.sub(over, 1, #op + 1) == op .. ' ' then
        redis.call('HDEL', KEYS[1], 'o:' .. number)
        redis.call('HINCRBY', KEYS[1], 'oc', -1)
        return string.sub(over, #op + 4)
    end
    return over and '' or nil
end

local known = redis.call('HGET', KEYS[1], 'p')
if not known or tonumber(string.match(known, ':(%d+)')) < tonumber(string.match(ARGV[2], ':(%d+)')) then
    redis.call('HSET', KEYS[1], 'p', ARGV[2])
end
for i = 3, #ARGV, 3 do
    local kind, number, word = ARGV[i], ARGV[i + 1], ARGV[i + 2]
    if kind == 'p' then
        if tonumber(number) > floor then
            redis.call('HSETNX', KEYS[1], number, word)
        end
    elseif kind == 'k' or kind == 't' then
        redis.call('HDEL', KEYS[1], number)
    elseif kind == 'd' then
        uncover(number, word)
        redis.call('HDEL', KEYS[1], number)
    elseif kind == 'e' then
        local item = uncover(number, word)
        if redis.call('HEXISTS', KEYS[1], number) == 1 then
            if item and item ~= '' then
                redis.call('HSET', KEYS[1], number, item)
            elseif not item then
                unknown[#unknown + 1] = number
            end
        end
    elseif kind == 'r' then
        if word == '' then
            redis.call('HDEL', KEYS[1], number)
        elseif redis.call('HEXISTS', KEYS[1], number) == 1 then
            redis.call('HSET', KEYS[1], number, word)
        end
    end
end
if tonumber(ARGV[1]) > floor then
    redis.call('HSET', KEYS[1], 'f', ARGV[1])
end
return unknown
