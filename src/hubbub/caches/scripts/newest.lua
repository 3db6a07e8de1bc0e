-- The newest ARGV[1] messages of the chat KEYS[1].
return newest(KEYS[1], tonumber(ARGV[1]))
