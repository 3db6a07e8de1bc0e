-- Announce ARGV[1] as one who would open the chat KEYS[1]; KEYS[2] has all that were announced.
if redis.call('HEXISTS', KEYS[1], 'e') == 1 then
    return 'open'
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local last = redis.call('HGET', KEYS[2], 'announced')
if last and now - last < 2000 then
    return 'wait'
end
redis.call('HSET', KEYS[2], 'announced', now, ARGV[1], 1)
redis.call('PEXPIRE', KEYS[2], 3600000)
return 'announced'
