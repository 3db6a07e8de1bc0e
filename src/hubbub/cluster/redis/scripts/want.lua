-- Announce the marker ARGV[1], which is to open the chat KEYS[1]. KEYS[2] has all announced markers. At most one is
-- announced in two seconds, unless the clock was set back since. Returns 'open', 'gone', 'wait' or 'announced'.
local state = redis.call('HGET', KEYS[1], 's')
if state == '1' or state == 'x' then
    return state == '1' and 'open' or 'gone'
end
local at, last = now(), redis.call('HGET', KEYS[2], 'announced')
if last and at - last < 2000 and at >= tonumber(last) then
    return 'wait'
end
redis.call('HSET', KEYS[2], 'announced', at, ARGV[1], 1)
redis.call('PEXPIRE', KEYS[2], 3600000)
return 'announced'
