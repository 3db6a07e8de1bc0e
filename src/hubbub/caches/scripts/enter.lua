-- One request of a user: the version of the user's sessions, KEYS[1], and the requests in this second, KEYS[2]; with
-- KEYS[3] also the version of the application, and what ARGV[2] asks for of the chat KEYS[4]: so many of its newest
-- messages, or a number. A number is given only if the versions are ARGV[3] and ARGV[4]: then the caller knows who may.
-- A version that is missing becomes ARGV[1], which was never used before.
local user = version(KEYS[1])
local count = redis.call('INCR', KEYS[2])
if count == 1 then
    redis.call('EXPIRE', KEYS[2], 3)
end
if not KEYS[3] then
    return {user, count}
end
local application = version(KEYS[3])
local found = false
if ARGV[2] == 'number' then
    if user == ARGV[3] and application == ARGV[4] then
        local epoch = redis.call('HGET', KEYS[4], 'e')
        found = epoch and {epoch, redis.call('HINCRBY', KEYS[4], 'n', 1)}
    end
elseif ARGV[2] ~= '' then
    found = newest(KEYS[4], tonumber(ARGV[2]))
end
return {user, count, application, found}
