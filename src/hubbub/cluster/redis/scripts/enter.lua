-- Admit the requests of users, all of one turn. ARGV: 1 a word never used before, 2 requests a second; then for each
-- request what it is, and what belongs to that. KEYS: for each request 1 the version of the user's sessions, 2 the user's
-- rate, and more as follows:
--   's'      no application
--   'a'      an application; 3 its version; the versions of user and application that the caller knows
--   'n'      a number for a message; also 4 the chat; the same versions
--   LIMIT    so many newest messages; also 5 whether the shard's queue is known to be drained; the same versions and the
--            page version that the caller knows
-- Returns for each {user version, admitted (0 or 1), application version, found}, or an error's text. A version that the
-- caller knows is not returned again. A number is given only if the caller knows both versions: then its knowledge of who
-- may post is current. ``found`` is {epoch, number}, or a page as shared.lua's newest returns it; for a chat that is not
-- live it is 1 when everything queued for it is stored, else 0.
local clock = redis.call('TIME')
local time = clock[1] * 1000000 + clock[2]
local each = math.floor(1000000 / tonumber(ARGV[2]))

-- How many keys and words a request has.
local function size_of(what)
    if what == 's' then
        return 2, 1
    elseif what == 'a' then
        return 3, 3
    elseif what == 'n' then
        return 4, 3
    end
    return 5, 4
end

-- The versions and rates of all requests, read by one command, by their keys. They are kept as they are after the
-- requests that were admitted so far.
local function values_of_all()
    local read, key, word = {}, 1, 3
    while ARGV[word] do
        local keys, words = size_of(ARGV[word])
        for i = key, key + math.min(keys, 3) - 1 do
            read[#read + 1] = KEYS[i]
        end
        key, word = key + keys, word + words
    end
    local values = {}
    for i, value in ipairs(redis.call('MGET', unpack(read))) do
        values[read[i]] = value
    end
    return values
end

local values = values_of_all()

-- ``at`` is the index of a key of the request: with the word that was never used before it makes another such word.
local function current(key, at, seconds)
    local known = values[key]
    if not known then
        known = version(key, ARGV[1] .. '.' .. at, seconds)
        values[key] = known
    end
    return known
end

local function enter(key, word)
    local what, user, rate = ARGV[word], current(KEYS[key], key, 86400), KEYS[key + 1]
    -- Generic cell rate algorithm: the time at which all requests sent so far would be due, at most two seconds ahead.
    -- It is later only if the clock was set back; then it counts no more.
    local held = tonumber(values[rate] or '0')
    local due = (held > time and held <= time + 2000000 and held or time) + each
    if due - time > 2000000 then
        return {user, 0}
    end
    values[rate] = string.format('%.0f', due)
    redis.call('SET', rate, values[rate], 'PX', '3000')
    if what == 's' then
        return {user, 1}
    end
    local application = current(KEYS[key + 2], key, UNKNOWN)
    local user_known, application_known = user == ARGV[word + 1], application == ARGV[word + 2]
    local found = false
    if what == 'n' then
        if user_known and application_known then
            local state = redis.call('HMGET', KEYS[key + 3], 'e', 's', 'n')
            if state[2] == '1' then
                local number = string.format('%.0f', state[3] + 1)
                redis.call('HSET', KEYS[key + 3], 'n', number, number, '')
                found = {state[1], number}
            end
        end
    elseif what ~= 'a' then
        found = newest(KEYS[key + 3], tonumber(what), ARGV[word + 3]) or redis.call('EXISTS', KEYS[key + 4])
    end
    return {not user_known and user, 1, not application_known and application, found}
end

local results, key, word = {}, 1, 3
while ARGV[word] do
    local good, result = pcall(enter, key, word)
    -- An error in one request must not fail the others.
    results[#results + 1] = good and result or (type(result) == 'table' and result.err or tostring(result))
    local keys, words = size_of(ARGV[word])
    key, word = key + keys, word + words
end
return results
