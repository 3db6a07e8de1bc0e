-- Mark that sessions of a user are about to end, or that this change is complete. KEYS: 1 the version of the user's
-- sessions. ARGV: 1 a word of this change that was never used before, 2 '' before the change, or another such word
-- after it. No process may remember a version that begins with '~'. It is '~WORD' while one change is in progress, and
-- '~' alone once a second one began before the first was complete: the one that completes first must not allow the
-- user's sessions to be remembered again while the other is in progress. A '~' alone expires after an hour, and so does
-- the version left by a process that was killed during a change; no change takes that long.
local now = redis.call('GET', KEYS[1]) or ''
local changing = string.sub(now, 1, 1) == '~'
if ARGV[2] == '' then
    redis.call('SET', KEYS[1], changing and '~' or '~' .. ARGV[1], 'EX', 3600)
elseif not changing or now == '~' .. ARGV[1] then
    redis.call('SET', KEYS[1], ARGV[2], 'EX', 86400)
end
return 1
