-- A chat was deleted. KEYS: 1 the chat, 2 its old entries, 3 who announced to open it. ARGV: 1 for how long it is known
-- here that it was, in ms: longer than what was under way, which must find no chat, and make none (fresh.lua, seed.lua).
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
redis.call('HSET', KEYS[1], 's', 'x')
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 1
