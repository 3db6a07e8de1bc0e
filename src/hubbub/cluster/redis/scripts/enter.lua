-- Admit the requests of users, all of one turn. KEYS: for each request 1 the version of the user's sessions, 2 the
-- user's rate; for a request to an application also 3 its version, 4 the chat, 5 whether the shard's queue is known to
-- be drained.
-- ARGV: 1 a word never used before, 2 requests a second; then for each request 1 the number of its keys, and if it has
-- five also 2 what it asks for: '', 'number', or a number of newest messages, 3 and 4 the versions of user and
-- application that the caller knows, 5 the page version that it knows.
-- Returns for each {user version, admitted (0 or 1), application version, found}, or an error's text. A number is given
-- only if both versions are the ones that the caller knows: then its knowledge of who may post is current. ``found`` is
-- {epoch, number}, or a page as shared.lua's newest returns it; for a chat that is not live it is 1 when everything
-- queued for it is stored, else 0.
local clock = redis.call('TIME')
local time = clock[1] * 1000000 + clock[2]
local each = math.floor(1000000 / tonumber(ARGV[2]))

local function enter(key, keys, word, fresh)
    local user = version(KEYS[key], fresh, 86400)
    -- Generic cell rate algorithm: the time at which all requests sent so far would be due, at most two seconds ahead.
    local due = math.max(tonumber(redis.call('GET', KEYS[key + 1]) or '0'), time) + each
    if due - time > 2000000 then
        return {user, 0}
    end
    redis.call('SET', KEYS[key + 1], string.format('%.0f', due), 'PX', 3000)
    if keys == '2' then
        return {user, 1}
    end
    local application, chat, wants = version(KEYS[key + 2], fresh, UNKNOWN), KEYS[key + 3], ARGV[word + 1]
    local found = false
    if wants == 'number' then
        if user == ARGV[word + 2] and application == ARGV[word + 3] then
            local state = redis.call('HMGET', chat, 'e', 's')
            if state[2] == '1' then
                local number = redis.call('HINCRBY', chat, 'n', 1)
                redis.call('HSET', chat, number, '')
                found = {state[1], number}
            end
        end
    elseif wants ~= '' then
        found = newest(chat, tonumber(wants), ARGV[word + 4]) or redis.call('EXISTS', KEYS[key + 4])
    end
    return {user, 1, application, found}
end

local results, key, word = {}, 1, 3
while ARGV[word] do
    local keys = ARGV[word]
    local good, result = pcall(enter, key, keys, word, ARGV[1] .. '.' .. key)
    -- An error in one request must not fail the others.
    results[#results + 1] = good and result or (type(result) == 'table' and result.err or tostring(result))
    key = key + tonumber(keys)
    word = word + (keys == '2' and 1 or 5)
end
return results
