-- A request without credentials came from KEYS[1]: 0, or the seconds until one may when ARGV[1] have come in a minute.
local count = redis.call('INCR', KEYS[1])
if count == 1 then
    redis.call('EXPIRE', KEYS[1], 60)
end
if count > tonumber(ARGV[1]) then
    return redis.call('TTL', KEYS[1])
end
return 0
