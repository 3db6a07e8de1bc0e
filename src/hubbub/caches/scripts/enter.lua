-- One request of a user: the version of the user's sessions, KEYS[1], and the requests in this second, KEYS[2].
local version = redis.call('GET', KEYS[1])
if not version then
    version = ARGV[1]
    redis.call('SET', KEYS[1], version, 'EX', 86400)
end
local count = redis.call('INCR', KEYS[2])
if count == 1 then
    redis.call('EXPIRE', KEYS[2], 3)
end
return {version, count}
