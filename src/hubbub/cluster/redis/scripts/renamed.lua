-- Rename a user in a chat's entries. KEYS: 1 the chat, 2 its old entries. ARGV: 1 the user's id, 2 the new name as
-- JSON. All entries of the user's messages get the name, whatever their order: a new name is no change of a message.
local field = '"senderName":'

-- The JSON of an entry has the name before the text, and nothing before the name can match the search.
local function renamed(entry)
    local sender = string.match(entry, '^%+?%d+ (%d+) ')
    local _, before = string.find(entry, field, 1, true)
    if sender ~= ARGV[1] or not before then
        return entry
    end
    local at = before + 2
    while string.sub(entry, at, at) ~= '"' do
        at = at + (string.sub(entry, at, at) == '\\' and 2 or 1)
    end
    return string.sub(entry, 1, before) .. ARGV[2] .. string.sub(entry, at + 1)
end

local changed = false
for _, key in ipairs(KEYS) do
    local held = redis.call('HGETALL', key)
    for i = 1, #held, 2 do
        local entry = renamed(held[i + 1])
        if entry ~= held[i + 1] then
            redis.call('HSET', key, held[i], entry)
            changed = true
        end
    end
end
if changed then
    redis.call('HINCRBY', KEYS[1], 'v', 1)
end
return changed and 1 or 0
