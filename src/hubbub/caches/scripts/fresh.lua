-- Open the new chat KEYS[1], unless KEYS[3], set before the chat was made, is gone: then something was lost since.
if redis.call('EXISTS', KEYS[3]) == 1 and redis.call('EXISTS', KEYS[1], KEYS[2]) == 0 then
    redis.call('HSET', KEYS[1], 'e', 1, 'n', 0, 'f', 0, 'oc', 0)
    redis.call('PEXPIRE', KEYS[1], ARGV[1])
end
redis.call('DEL', KEYS[3])
return 1
