-- The version of something that changes: KEYS[1]. A missing one gets ARGV[1], which was never used before.
local version = redis.call('GET', KEYS[1])
if not version then
    version = ARGV[1]
    redis.call('SET', KEYS[1], version, 'EX', 86400)
end
return version
