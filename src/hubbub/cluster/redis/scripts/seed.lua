-- Seed a chat as pending. KEYS: 1 the chat, 2 its old entries, 3 the markers announced for it.
-- ARGV: 1 the candidate, which must be among those announced: this shows that no data was lost since; 2 epoch, 3 last
-- number, 4 floor, 5 lifetime in ms, 6 the store's position, then numbers and entries.
-- Returns 1 when this made the chat pending in that epoch, else 0.
local state = redis.call('HMGET', KEYS[1], 'e', 's')
if state[2] == '1' or state[2] == 'x' or (state[1] and tonumber(state[1]) >= tonumber(ARGV[2])) then
    return 0
end
if redis.call('HEXISTS', KEYS[3], ARGV[1]) == 0 then
    return 0
end
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
redis.call('HSET', KEYS[1], 'e', ARGV[2], 's', 0, 'n', ARGV[3], 'f', ARGV[4], 'c', 0, 'v', 0, 'p', ARGV[6])
for i = 7, #ARGV, 2 do
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
end
redis.call('PEXPIRE', KEYS[1], ARGV[5])
return 1
