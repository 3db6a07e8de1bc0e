"""A Hubbub that is broken on purpose: Redis' counter is believed, also when it starts from nothing."""

from hubbub.caches import redis

for _name in ("reserve", "enter", "newest", "settle", "change"):
    _opens = "if redis.call('EXISTS', KEYS[%d]) == 0 then redis.call('HSET', KEYS[%d], 'e', '1', 'n', 0, 'f', 0, 'oc', 0) end\n"
    _chat = 4 if _name == "enter" else 1
    _guard = f"if KEYS[{_chat}] then\n" + _opens % (_chat, _chat) + "end\n"
    redis.SCRIPTS[_name] = _guard + redis.SCRIPTS[_name]
