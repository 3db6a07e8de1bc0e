-- Show confirmed commands whose epoch is live. KEYS: the chats, their old entries, and the entries of Idempotency-Keys;
-- ARGV refers to them by their index. ARGV: 1 lifetime of a chat in ms, then for each command eight words:
--   'p' chat old key epoch number entry channel      a post; ``key`` is 0 when it has no Idempotency-Key
--   'e' chat old place epoch number entry channel    an edit, with its place among the epoch's changes
--   'd' chat old place epoch number entry channel    a delete; its entry is "order x"
-- Returns for each: '' when it can't be shown, because its epoch is over; the page version that it made; or '=' when
-- there was nothing left to show, because it was stored first.
local results = {}

local function publish(channel, number, entry)
    redis.call('PUBLISH', channel, entry and number .. ' ' .. entry or number)
end

-- Show a post in a chat of which ``state`` has the epoch, the page version, and the post's entry.
local function post(chat, old, number, entry, channel, state)
    local held, made = state[4], string.format('%.0f', state[3] + 1)
    if held == '' then
        redis.call('HSET', chat, number, '+' .. entry, 'v', made)
    elseif not held and redis.call('HGET', old, number) == '' then
        redis.call('HSET', old, number, '+' .. entry)
        redis.call('PEXPIRE', old, ARGV[1])
        redis.call('HSET', chat, 'v', made)
    else
        -- The post was stored first, and the entry may be newer by now, or removed. The listeners have not been told
        -- yet.
        publish(channel, number, held and not is_deleted(held) and string.gsub(held, '^%+', ''))
        return '='
    end
    publish(channel, number, entry)
    return state[1] .. '.' .. made
end

-- The entry that replaces ``held``: it keeps the mark of a message that is not stored yet.
local function instead(held, entry)
    return is_waiting(held) and '+' .. entry or entry
end

-- An edit replaces an older entry, a delete replaces any entry. If the change was stored first, the entry already shows
-- it, or is removed: a change that no longer waits for the store creates no entry.
local function change(kind, chat, old, place, number, entry, channel)
    local held, at = redis.call('HGET', chat, number), chat
    if not held then
        held, at = redis.call('HGET', old, number), old
    end
    if held then
        if kind == 'd' then
            redis.call('HSET', at, number, entry)
        elseif not is_deleted(held) and order_of(held) < order_of(entry) then
            redis.call('HSET', at, number, instead(held, entry))
        end
    elseif
        waits(chat, number, place)
        and tonumber(number) <= tonumber(redis.call('HGET', chat, 'f'))
        and (kind == 'd' or tonumber(place) > stored_place(chat, number))
    then
        redis.call('HSET', old, number, entry)
    else
        publish(channel, number)
        return '='
    end
    redis.call('HINCRBY', chat, 'v', 1)
    redis.call('PEXPIRE', old, ARGV[1])
    publish(channel, number)
    return page_version(chat)
end

local kept = {} -- the chats whose lifetime was prolonged
for i = 2, #ARGV, 8 do
    local kind, chat, old = ARGV[i], KEYS[tonumber(ARGV[i + 1])], KEYS[tonumber(ARGV[i + 2])]
    local extra, epoch, number, entry, channel = ARGV[i + 3], ARGV[i + 4], ARGV[i + 5], ARGV[i + 6], ARGV[i + 7]
    local state = redis.call('HMGET', chat, 'e', 's', 'v', number)
    if state[1] ~= epoch or state[2] ~= '1' then
        results[#results + 1] = ''
    elseif kind == 'p' then
        results[#results + 1] = post(chat, old, number, entry, channel, state)
        local key = KEYS[tonumber(extra)]
        if key and redis.call('HGET', key, 'n') == number then
            redis.call('HSET', key, 'told', 1)
        end
    else
        results[#results + 1] = change(kind, chat, old, extra, number, entry, channel)
    end
    if results[#results] ~= '' and not kept[chat] then
        redis.call('PEXPIRE', chat, ARGV[1])
        kept[chat] = true
    end
end
return results
