-- Make a chat live that was just created. KEYS: 1 the chat, 2 the markers announced for it, 3 the guard, which was set
-- before the chat was created: if it is missing, data may have been lost since. ARGV: 1 lifetime in ms.
if redis.call('EXISTS', KEYS[3]) == 1 and redis.call('EXISTS', KEYS[1], KEYS[2]) == 0 then
    redis.call('HSET', KEYS[1], 'e', 1, 's', 1, 'n', 0, 'f', 0, 'c', 0, 'v', 0)
    redis.call('PEXPIRE', KEYS[1], ARGV[1])
end
redis.call('DEL', KEYS[3])
return 1
