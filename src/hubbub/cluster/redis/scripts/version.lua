-- The version of an application, KEYS[1]. ARGV[1] is a word never used before.
return version(KEYS[1], ARGV[1], UNKNOWN)
