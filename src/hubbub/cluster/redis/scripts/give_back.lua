-- Take one off each of the counts KEYS, because what was counted did not fail. ARGV has for each the milliseconds that
-- one is worth. See count.lua.
local time = now()
for i = 1, #KEYS do
    local gone = tonumber(redis.call('GET', KEYS[i]) or '0') - tonumber(ARGV[i])
    if gone > time then
        redis.call('SET', KEYS[i], string.format('%.0f', gone), 'PX', gone - time)
    else
        redis.call('DEL', KEYS[i])
    end
end
return 0
