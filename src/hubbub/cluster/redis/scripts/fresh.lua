-- Make a chat that was just made live. KEYS: 1 the chat, 2 who announced to open it, 3 the guard, which was set before the
-- chat was made: if it is gone, something was lost since. ARGV: 1 lifetime in ms.
if redis.call('EXISTS', KEYS[3]) == 1 and redis.call('EXISTS', KEYS[1], KEYS[2]) == 0 then
    redis.call('HSET', KEYS[1], 'e', 1, 's', 1, 'n', 0, 'f', 0, 'c', 0, 'v', 0)
    redis.call('PEXPIRE', KEYS[1], ARGV[1])
end
redis.call('DEL', KEYS[3])
return 1
