-- The newest ARGV[1] messages and one more, as {floor, changes under way, number, item, number, item, …}.
local state = redis.call('HMGET', KEYS[1], 'e', 'n', 'f', 'oc')
if not state[1] then
    return false
end
local at, floor, want = tonumber(state[2]), tonumber(state[3]), tonumber(ARGV[1]) + 1
local found = {floor, tonumber(state[4])}
while at > floor and want > 0 do
    local low = math.max(floor + 1, at - want - 7)
    local numbers = {}
    for number = at, low, -1 do
        numbers[#numbers + 1] = number
    end
    local items = redis.call('HMGET', KEYS[1], unpack(numbers))
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
