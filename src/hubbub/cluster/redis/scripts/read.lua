-- Read entries from a number on. KEYS: 1 the chat, 2 its old entries, 3 whether the shard's queue is known to be
-- drained.
-- ARGV: 1 the number (0: the last given), 2 the step, 1 or -1, 3 how many are wanted, 4 of how many of these, the first,
-- only the numbers are: the entry that is returned is empty. A page skips them, and they may be long.
-- Returns {floor, position, rest, old entries, found, open}: rest is the number to continue at, 0 when all were read;
-- old entries are {number, entry, …}; open has the numbers that are given and not shown. For a chat that is not live it
-- returns 1 when everything queued for it is stored, else 0.
local state = redis.call('HMGET', KEYS[1], 's', 'f', 'n', 'p')
if state[1] ~= '1' then
    return redis.call('EXISTS', KEYS[3])
end
local floor, last, at, step = tonumber(state[2]), tonumber(state[3]), tonumber(ARGV[1]), tonumber(ARGV[2])
local found, rest, open
if step < 0 then
    found, rest, open = entries(KEYS[1], at == 0 and last or math.min(at, last), floor + 1, -1, tonumber(ARGV[3]))
else
    found, rest, open = entries(KEYS[1], math.max(at, floor + 1), last, 1, tonumber(ARGV[3]))
end
for at = 2, math.min(2 * tonumber(ARGV[4]), #found), 2 do
    found[at] = ''
end
return {floor, state[4] or '', rest, redis.call('HGETALL', KEYS[2]), found, open}
