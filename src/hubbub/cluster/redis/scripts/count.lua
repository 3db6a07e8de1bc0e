-- Count one against each of some limits. KEYS are the counts, each the moment (ms) at which nothing of it will be left;
-- ARGV for each the milliseconds that one is worth, and how many there may be.
-- Returns 0, or {which of them is used up, milliseconds until it is not}; then nothing was counted.
local time, gone = now(), {}
for i = 1, #KEYS do
    local each, most = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
    -- One that is full is not fuller than that: this clock may have been set back.
    local at = math.min(tonumber(redis.call('GET', KEYS[i]) or '0'), time + each * most)
    gone[i] = math.max(at, time) + each
    if gone[i] - time > each * most then
        return {i, gone[i] - time - each * most}
    end
end
for i = 1, #KEYS do
    redis.call('SET', KEYS[i], string.format('%.0f', gone[i]), 'PX', gone[i] - time)
end
return 0
