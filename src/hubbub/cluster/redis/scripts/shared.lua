-- Functions that all scripts share: this text is put before each of them. redis/keys.py describes the values of the
-- keys.

-- The version of something that changes. A missing version is set to ``fresh``, for this many seconds.
--
-- A version may be lost at any moment. What a process remembers at a version is valid only while the same word is here,
-- and no word is used twice: it is made of a process's random name and a number that only rises in that process. So
-- everything that was read at a lost version is read again, also if a process began to read it before the loss and
-- remembered it afterwards. A process that changes the thing sets a new word once the change is in the store.
local function version(key, fresh, seconds)
    local known = redis.call('GET', key)
    if not known then
        known = fresh
        redis.call('SET', key, known, 'EX', seconds)
    end
    return known
end

-- Lifetime in seconds of an application's version while it is not known whether the application exists: a client may
-- ask for any token. A process that finds a member of it in the store makes it a day, see redis/messages.py.
local UNKNOWN = 60

-- The order of an entry; -1 for an empty one.
local function order_of(entry)
    return tonumber(string.match(entry, '^%+?(%d+)') or '-1')
end

-- Whether an entry's message is shown and not stored yet.
local function is_waiting(entry)
    return string.sub(entry, 1, 1) == '+'
end

-- Whether an entry says that its message is deleted.
local function is_deleted(entry)
    return string.sub(entry, -2) == ' x'
end

-- The places of the changes of a message that are not stored yet, each between blanks; '' for none. In front of them
-- may be '=' and the place of the last edit that is stored.
local function waiting(chat, number)
    return redis.call('HGET', chat, 'q:' .. number) or ''
end

local function waits(chat, number, place)
    return string.find(waiting(chat, number), ' ' .. place .. ' ', 1, true) ~= nil
end

-- The place of the last stored edit of a message; 0 when no change waits that it could have overtaken.
local function stored_place(chat, number)
    return tonumber(string.match(waiting(chat, number), '=(%d+)') or '0')
end

-- The name of the data set: it changes when a server takes over the data of another.
local function data_set()
    return string.match(redis.call('INFO', 'replication'), 'master_replid:(%w+)')
end

-- Milliseconds since 1970.
local function now()
    local time = redis.call('TIME')
    return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- A chat's page version, as "epoch.version"; false when the chat is not live.
local function page_version(chat)
    local state = redis.call('HMGET', chat, 'e', 's', 'v')
    return state[2] == '1' and state[1] .. '.' .. state[3]
end

-- Shown entries of a live chat from the number ``at`` on, upwards (step 1) or downwards (-1), until ``want`` are found
-- or ``last`` is reached, over at most about a thousand numbers. Returns {number, entry, …}, the number to continue at
-- (0 when it is done), and the numbers in between that are given and not shown.
local function entries(chat, at, last, step, want)
    local found, looked, open = {}, 0, {}
    while (last - at) * step >= 0 do
        if want <= 0 or looked >= 1000 then
            return found, at, open
        end
        local numbers = {}
        local some = math.min(want + 7, 200, (last - at) * step + 1)
        for i = 0, some - 1 do
            numbers[#numbers + 1] = at + i * step
        end
        local held = redis.call('HMGET', chat, unpack(numbers))
        looked = looked + some
        for i = 1, some do
            if held[i] and held[i] ~= '' and not is_deleted(held[i]) then
                found[#found + 1] = numbers[i]
                found[#found + 1] = held[i]
                want = want - 1
                if want <= 0 then
                    local rest = numbers[i] + step
                    return found, (last - rest) * step >= 0 and rest or 0, open
                end
            elseif held[i] == '' then
                open[#open + 1] = numbers[i]
            end
        end
        at = at + some * step
    end
    return found, 0, open
end

-- A chat's newest messages, ``limit`` and one more: {version, whole, number, entry, …}; ``whole`` is 1 when the store
-- has no older ones than these, or when there are as many as asked for. {version} alone when the caller knows that
-- version; false when the chat is not live.
local function newest(chat, limit, known)
    local state = redis.call('HMGET', chat, 'e', 's', 'v', 'f', 'n')
    if state[2] ~= '1' then
        return false
    end
    local current = state[1] .. '.' .. state[3]
    if current == known then
        return {current}
    end
    local floor = tonumber(state[4])
    local found, rest = entries(chat, tonumber(state[5]), floor + 1, -1, limit + 1)
    local whole = (#found == 2 * limit + 2 or (rest == 0 and floor == 0)) and 1 or 0
    return {current, whole, unpack(found)}
end
