-- KEYS: 1 the chat, 2 whether the shard's queue is known to be drained. ARGV: 1 how many messages, 2 the version known.
-- Returns a page as shared.lua's newest makes it, or for a chat that is not live 1 when all that was queued for it is
-- stored, else 0.
return newest(KEYS[1], tonumber(ARGV[1]), ARGV[2]) or redis.call('EXISTS', KEYS[2])
