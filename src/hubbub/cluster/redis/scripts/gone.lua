-- Mark a chat as deleted. KEYS: 1 the chat, 2 its old entries, 3 the markers announced for it. ARGV: 1 lifetime of the
-- mark in ms. It must outlast all commands in progress, which must find no chat and create none (fresh.lua, seed.lua).
redis.call('DEL', KEYS[1], KEYS[2], KEYS[3])
redis.call('HSET', KEYS[1], 's', 'x')
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return 1
