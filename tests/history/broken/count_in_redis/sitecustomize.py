"""A Hubbub that is broken on purpose: Redis' counter is believed, also when it starts from nothing."""

from hubbub.caches import redis

for _name in ("reserve", "enter", "newest", "settle", "change"):
    _chat = f"KEYS[{4 if _name == 'enter' else 1}]"
    _open = f"redis.call('HSET', {_chat}, 'e', '1', 'n', 0, 'f', 0, 'oc', 0)"
    _if_new = f"if {_chat} and redis.call('EXISTS', {_chat}) == 0 then {_open} end\n"
    redis.SCRIPTS[_name] = _if_new + redis.SCRIPTS[_name]
