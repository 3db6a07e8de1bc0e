-- One request of a user: the version of the user's sessions, KEYS[1], and the requests in this second, KEYS[2]; with
-- KEYS[3] also the version of the application, and what ARGV[2] asks for of the chat KEYS[4]: so many of its newest
-- messages, or a number. A number is given only if the versions are ARGV[3] and ARGV[4]: then the caller knows who may.
-- A version that is missing becomes ARGV[1], which was never used before.
local function version(key)
    local known = redis.call('GET', key)
    if not known then
        known = ARGV[1]
        redis.call('SET', key, known, 'EX', 86400)
    end
    return known
end

local function newest(chat, limit)
    local state = redis.call('HMGET', chat, 'e', 'n', 'f', 'oc')
    if not state[1] then
        return false
    end
    local at, floor, want = tonumber(state[2]), tonumber(state[3]), limit + 1
    local found = {floor, tonumber(state[4])}
    while at > floor and want > 0 do
        local low = math.max(floor + 1, at - want - 7)
        local numbers = {}
        for number = at, low, -1 do
            numbers[#numbers + 1] = number
        end
        local items = redis.call('HMGET', chat, unpack(numbers))
        for i = 1, #numbers do
            if items[i] and want > 0 then
                found[#found + 1] = numbers[i]
                found[#found + 1] = items[i]
                want = want - 1
            end
        end
        at = low - 1
    end
    return found
end

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
