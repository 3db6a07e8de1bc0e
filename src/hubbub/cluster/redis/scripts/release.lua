-- Give back a number that was never sent. KEYS: 1 the chat, 2 the entry of its Idempotency-Key, if there is one.
-- ARGV: 1 the epoch, 2 the number. A number with a key stays while another try with the same key uses it.
if KEYS[2] then
    local known = redis.call('HMGET', KEYS[2], 'e', 'n', 'told')
    if known[1] ~= ARGV[1] or known[2] ~= ARGV[2] or known[3] or redis.call('HINCRBY', KEYS[2], 'tries', -1) > 0 then
        return 0
    end
    redis.call('DEL', KEYS[2])
end
if redis.call('HGET', KEYS[1], 'e') == ARGV[1] and redis.call('HGET', KEYS[1], ARGV[2]) == '' then
    redis.call('HDEL', KEYS[1], ARGV[2])
end
return 1
