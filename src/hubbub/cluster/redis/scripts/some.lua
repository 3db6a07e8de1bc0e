-- Read the entries of the numbers ARGV. KEYS: 1 the chat, 2 its old entries, 3 whether the shard's queue is known to be
-- drained.
-- Returns {floor, position, entry, …}: each entry is the chat's, or else the old entries', or false if neither has it.
-- For a chat that is not live it returns 1 when everything queued for it is stored, else 0.
local state = redis.call('HMGET', KEYS[1], 's', 'f', 'p')
if state[1] ~= '1' then
    return redis.call('EXISTS', KEYS[3])
end
local held = redis.call('HMGET', KEYS[1], unpack(ARGV))
local old = redis.call('HMGET', KEYS[2], unpack(ARGV))
local found = {tonumber(state[2]), state[3] or ''}
for i = 1, #ARGV do
    found[#found + 1] = held[i] or old[i]
end
return found
