-- Put before every script that calls one of these.

-- The version of something that changes. One that is missing becomes ARGV[1], which was never used before.
local function version(key)
    local known = redis.call('GET', key)
    if not known then
        known = ARGV[1]
        redis.call('SET', key, known, 'EX', 86400)
    end
    return known
end

-- A chat's newest messages, as many as limit and one more, with the changes that are under way, as {floor, number, item, number, item, …}; false when the chat is not open.
local function newest(chat, limit)
    local state = redis.call('HMGET', chat, 'e', 'n', 'f', 'oc')
    if not state[1] then
        return false
    end
    local at, floor, want = tonumber(state[2]), tonumber(state[3]), limit + 1
    local changes = tonumber(state[4]) > 0
    local found = {floor}
    while at > floor and want > 0 do
        local low = math.max(floor + 1, at - want - 7)
        local numbers = {}
        for number = at, low, -1 do
            numbers[#numbers + 1] = number
        end
        local items = redis.call('HMGET', chat, unpack(numbers))
        for i = 1, #numbers do
            local item = items[i]
            if item and changes then
                local over = redis.call('HGET', chat, 'o:' .. numbers[i])
                if over then
                    item = string.match(over, '^%S+ e (.*)$')
                end
            end
            if item and want > 0 then
                found[#found + 1] = numbers[i]
                found[#found + 1] = item
                want = want - 1
            end
        end
        at = low - 1
    end
    return found
end
