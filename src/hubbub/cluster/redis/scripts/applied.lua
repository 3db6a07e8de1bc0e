-- Update a chat with commands that the store has applied. KEYS: 1 the chat, 2 its old entries, 3 whether the shard's
-- queue is known to be drained, then the entries of Idempotency-Keys whose message is stored.
-- ARGV: 1 the store's position, 2 lifetime in ms while something may wait for the store, 3 lifetime in ms once all is
-- stored, 4 lifetime in ms of a key from now on, 5 the number of keys, then the number that each has in the store, then
-- four words for each command:
--   'p' number entry epoch    a post of this epoch
--   'x' number '' epoch       a post of this epoch that is not stored, because its key has another number
--   'a' number entry ''       a post without an epoch, because it was set aside before
--   'e' number order ''       an edit         'd' number order ''    a delete
--   'r' number entry ''       a message as the store has it now ('' when the store no longer has it)
-- Returns the numbers that must be read from the store, because their current state is not known here.
for i = 4, #KEYS do
    if redis.call('HGET', KEYS[i], 'n') == ARGV[i + 2] then
        redis.call('PEXPIRE', KEYS[i], ARGV[4])
    end
end
local chat, old = KEYS[1], KEYS[2]
-- A full Redis refuses commands that add data only until a script has changed something, and this script never adds
-- more than it moves from one hash to the other. So it begins with a command that is never refused.
redis.call('HDEL', chat, '')
local state = redis.call('HMGET', chat, 'e', 'f', 'p', 'n', 'c', 'a')
local epoch, floor = state[1], tonumber(state[2] or '0')
if not epoch then
    return {}
end
local AT_ONCE = 200
local unknown, changed, highest, dropped = {}, false, 0, false
local last_change = tonumber(state[6] or '0')

-- HSET. Returns whether it was accepted: a full Redis may refuse it all the same.
local function add(...)
    return type(redis.pcall('HSET', ...)) == 'number'
end

-- Add what readers must see. If there is no room for it, the chat is dropped, as if it had been lost: no client was
-- told of a message that was not shown, and the queue is no longer known to be drained.
local function must_add(...)
    changed = true
    dropped = not add(...) or dropped
end

-- A change's place in this epoch; false for one of an earlier epoch, which is stored.
local function place_of(order)
    local of = math.floor(order / 268435456)
    return of == tonumber(epoch) and string.format('%.0f', order - of * 268435456)
end

-- Whether an entry shows a change that is not stored.
local function changing(number, entry)
    local order = order_of(entry)
    local place = order > 0 and place_of(order)
    return place and waits(chat, number, place)
end

-- Whether a position is later. It is "shards:shard:transactions". If the numbers of shards differ, the position with
-- more shards is later; otherwise the one with more transactions.
local function later(position, than)
    local shards, transactions = string.match(position, '^(%d+):%d+:(%d+)$')
    local known_shards, known = string.match(than or '', '^(%d+):%d+:(%d+)$')
    if shards ~= known_shards then
        return tonumber(shards) > tonumber(known_shards or '0')
    end
    return tonumber(transactions) > tonumber(known)
end

local newer = later(ARGV[1], state[3])

-- The entries of the commands' numbers, read by few commands. Each is used once, as it may change then.
local first, entries_of = 6 + tonumber(ARGV[5]), {}
for from = first, #ARGV, 4 * AT_ONCE do
    local numbers = {}
    for i = from, math.min(from + 4 * (AT_ONCE - 1), #ARGV), 4 do
        numbers[#numbers + 1] = ARGV[i + 1]
    end
    for i, held in ipairs(redis.call('HMGET', chat, unpack(numbers))) do
        entries_of[numbers[i]] = held
    end
end

for i = first, #ARGV, 4 do
    local kind, number, word = ARGV[i], ARGV[i + 1], ARGV[i + 2]
    local held = entries_of[number]
    entries_of[number] = nil
    if held == nil then
        held = redis.call('HGET', chat, number)
    end
    local under = not held and redis.call('HGET', old, number)
    if kind == 'p' then
        if ARGV[i + 3] == epoch then
            highest = math.max(highest, tonumber(number))
            if held == '' then
                must_add(chat, number, word)
            elseif held and is_waiting(held) then
                add(chat, number, string.sub(held, 2))
            elseif under == '' or (under and is_waiting(under) and not changing(number, under)) then
                redis.call('HDEL', old, number)
                changed = true
            elseif under and is_waiting(under) then
                add(old, number, string.sub(under, 2))
            end
        end
    elseif kind == 'x' then
        if held and ARGV[i + 3] == epoch then
            redis.call('HDEL', chat, number)
            changed = true
        end
    elseif kind == 'a' then
        if not held and not under and newer and tonumber(number) > floor then
            must_add(chat, number, word)
        end
    elseif kind == 'r' then
        if held and word == '' then
            redis.call('HDEL', chat, number)
        elseif held and not is_deleted(held) and order_of(held) < order_of(word) then
            must_add(chat, number, word)
        end
        changed = true
    elseif word == '0' or place_of(tonumber(word)) then -- changes of other epochs were stored before this one began
        local order = tonumber(word)
        local place = place_of(order)
        if place and tonumber(place) > last_change then
            last_change = tonumber(place)
            add(chat, 'a', place)
        end
        if kind == 'd' then -- all changes of the message that are on their way end with it
            redis.call('HDEL', chat, number, 'q:' .. number)
            redis.call('HDEL', old, number)
        else
            local notes = place and waiting(chat, number) or ''
            if notes ~= '' then
                local stored = math.max(stored_place(chat, number), tonumber(place))
                local left = string.gsub(string.gsub(notes, '=%d+ ', ''), ' ' .. place .. ' ', ' ')
                if left == ' ' then
                    redis.call('HDEL', chat, 'q:' .. number)
                else
                    add(chat, 'q:' .. number, ' =' .. stored .. left)
                end
            end
            if held and not is_deleted(held) and order_of(held) < order then
                unknown[#unknown + 1] = number
            elseif under and not is_deleted(under) and order_of(under) <= order then
                redis.call('HDEL', old, number)
            end
        end
        changed = true
    end
end

if dropped then
    redis.call('DEL', chat, old, KEYS[3])
    return {}
end

-- Messages more than two hundred numbers back are read from the store. Those that are not stored, or not stored as they
-- are shown, move to the old entries.
local rise = math.min(highest - 200, floor + 2000)
if rise > floor + 100 and redis.call('HLEN', old) < 5000 then
    local full = false
    while floor < rise and not full do
        local numbers, gone = {}, {}
        for number = floor + 1, math.min(floor + AT_ONCE, rise) do
            numbers[#numbers + 1] = number
        end
        for i, held in ipairs(redis.call('HMGET', chat, unpack(numbers))) do
            if held then
                local beside = held == '' or is_waiting(held) or is_deleted(held) or changing(numbers[i], held)
                if beside and not add(old, numbers[i], held) then
                    full = true
                    break
                end
                gone[#gone + 1] = numbers[i]
            end
            floor = numbers[i]
        end
        if #gone > 0 then
            redis.call('HDEL', chat, unpack(gone))
        end
    end
    add(chat, 'f', floor)
    redis.call('PEXPIRE', old, ARGV[2])
    changed = true
end
if newer then
    add(chat, 'p', ARGV[1])
end
if changed then
    redis.pcall('HINCRBY', chat, 'v', 1)
end
-- The last given number is stored, and so is the last change: nothing that was shown waits for the store.
if tostring(highest) == state[4] and last_change == tonumber(state[5] or '0') then
    redis.call('PEXPIRE', chat, ARGV[3])
end
return unknown
