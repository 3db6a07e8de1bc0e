-- Open the chat KEYS[1] for ARGV[1], one of the announced in KEYS[2], which vouch that nothing was lost since:
-- epoch ARGV[2], last number ARGV[3], floor ARGV[4], lifetime ARGV[5], the store's position ARGV[6], then
-- numbers and items.
local epoch = redis.call('HGET', KEYS[1], 'e')
if epoch then
    return epoch == ARGV[2] and 1 or 0
end
if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 0 then
    return 0
end
redis.call('DEL', KEYS[1], KEYS[2])
redis.call('HSET', KEYS[1], 'e', ARGV[2], 'n', ARGV[3], 'f', ARGV[4], 'oc', 0, 'p', ARGV[6])
for i = 7, #ARGV, 2 do
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
end
redis.call('PEXPIRE', KEYS[1], ARGV[5])
return 1
