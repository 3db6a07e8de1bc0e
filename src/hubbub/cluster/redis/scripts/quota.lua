-- One more of what a user makes. KEYS: 1 the user's, for that kind. ARGV: 1 how many in an hour.
-- Returns 0, or, when it is one too many, the milliseconds until it may be made.
local clock = redis.call('TIME')
local time = clock[1] * 1000000 + clock[2]
local hour = 3600000000
-- As in enter.lua: the moment at which all would be used up, at most an hour ahead.
local due = math.max(tonumber(redis.call('GET', KEYS[1]) or '0'), time) + math.floor(hour / tonumber(ARGV[1]))
if due - time > hour then
    return math.ceil((due - time - hour) / 1000)
end
redis.call('SET', KEYS[1], string.format('%.0f', due), 'PX', 3600000)
return 0
