"""A Hubbub that is broken on purpose: it trusts Redis' counter, also when that starts from zero."""

from hubbub.cluster.redis import keys

for _name in ("number", "enter", "newest", "read", "some", "show", "order"):
    _chats = "KEYS" if _name in ("show", "enter") else "{KEYS[1]}"
    keys.SCRIPTS[_name] = (
        f"for _, chat in ipairs({_chats}) do\n"
        "  if string.find(chat, ':c:') and redis.call('EXISTS', chat) == 0 then\n"
        "    redis.call('HSET', chat, 'e', '1', 's', 1, 'n', 0, 'f', 0, 'c', 0, 'v', 0)\n"
        "  end\n"
        "end\n"
    ) + keys.SCRIPTS[_name]
