-- Read the newest messages. KEYS: 1 the chat, 2 whether the shard's queue is known to be drained. ARGV: 1 the number of
-- messages, 2 the page version that the caller knows.
-- Returns a page as shared.lua's newest returns it; for a chat that is not live 1 when everything queued for it is
-- stored, else 0.
return newest(KEYS[1], tonumber(ARGV[1]), ARGV[2]) or redis.call('EXISTS', KEYS[2])
