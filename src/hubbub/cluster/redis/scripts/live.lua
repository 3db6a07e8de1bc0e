-- Make the chat KEYS[1] live, if it is still pending in the epoch ARGV[1], which is the live epoch in the store by now.
local state = redis.call('HMGET', KEYS[1], 'e', 's')
if state[1] == ARGV[1] and state[2] == '0' then
    redis.call('HSET', KEYS[1], 's', 1)
    return 1
end
return 0
