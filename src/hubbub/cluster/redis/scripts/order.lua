-- Give the next place of a change. KEYS: 1 the chat, 2 its old entries. ARGV: 1 the number of the message.
-- Returns {'closed'}, {'full'} when too many changes wait, {'missing'} when there is no such message, or
-- {'new', epoch, place, position, entry}, where entry is the message's entry, or false when only the store can have it.
local state = redis.call('HMGET', KEYS[1], 'e', 's', 'f', 'p')
if state[2] ~= '1' then
    return {'closed'}
end
if redis.call('HLEN', KEYS[2]) >= 5000 then
    return {'full'}
end
local entry = redis.call('HGET', KEYS[1], ARGV[1]) or redis.call('HGET', KEYS[2], ARGV[1])
local floor = tonumber(state[3])
if entry == '' or (entry and is_deleted(entry)) or (not entry and tonumber(ARGV[1]) > floor) then
    return {'missing'}
end
local place = redis.call('HINCRBY', KEYS[1], 'c', 1)
local others = waiting(KEYS[1], ARGV[1])
redis.call('HSET', KEYS[1], 'q:' .. ARGV[1], (others == '' and ' ' or others) .. place .. ' ')
return {'new', state[1], place, state[4] or '', entry}
