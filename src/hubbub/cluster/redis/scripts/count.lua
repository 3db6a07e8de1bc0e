-- Count one against each of some limits. KEYS are the counts, each stored as the time (ms) at which it will be back to
-- zero. ARGV has for each the milliseconds in which one is taken off, and the limit.
-- Returns 0, or {the index of a limit that is used up, milliseconds until one is free}; then nothing was counted.
local time, gone = now(), {}
for i = 1, #KEYS do
    local each, most = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i])
    local at = tonumber(redis.call('GET', KEYS[i]) or '0')
    if at > time + each * most then -- only if the clock was set back: from now on the count falls again
        at = time + each * most
        redis.call('SET', KEYS[i], string.format('%.0f', at), 'PX', each * most)
    end
    gone[i] = math.max(at, time) + each
    if gone[i] - time > each * most then
        return {i, gone[i] - time - each * most}
    end
end
for i = 1, #KEYS do
    redis.call('SET', KEYS[i], string.format('%.0f', gone[i]), 'PX', gone[i] - time)
end
return 0
