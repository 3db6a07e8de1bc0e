-- Sessions of a user are about to end, or the change is over. KEYS: 1 the version of the user's sessions. ARGV: 1 a word
-- of this change that was never used before, 2 '' before the change, or another such word after it.
-- A version that begins with '~' is nobody's to remember: '~WORD' while one change is on its way, '~' alone once there
-- was another meanwhile, as the one that is over first may not let the user's sessions be remembered again for both. It
-- goes after an hour, as does that of a process that was killed on its way; no change takes that long.
local now = redis.call('GET', KEYS[1]) or ''
local changing = string.sub(now, 1, 1) == '~'
if ARGV[2] == '' then
    redis.call('SET', KEYS[1], changing and '~' or '~' .. ARGV[1], 'EX', 3600)
elseif not changing or now == '~' .. ARGV[1] then
    redis.call('SET', KEYS[1], ARGV[2], 'EX', 86400)
end
return 1
