-- The entry of an event that is in the stream, or nothing.
--
-- KEYS: stream, places
-- ARGV: event id
local place = redis.call('HGET', KEYS[2], ARGV[1])
if not place then return false end
local found = redis.call('XRANGE', KEYS[1], place, place)
if #found == 0 then return false end
return found[1][2][2]
