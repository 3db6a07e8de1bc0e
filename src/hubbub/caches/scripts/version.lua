-- The version KEYS[1].
return version(KEYS[1])
