-- Moves an entry that nobody can persist out of the way, to a stream of its own, with the reason: nothing is thrown away.
--
-- KEYS: stream, state, places, aside
-- ARGV: group, place in the stream, event id (empty when it cannot be read), what it counts for in bytes, reason
-- Answers whether it was still there.
local found = redis.call('XRANGE', KEYS[1], ARGV[2], ARGV[2])
redis.call('XACK', KEYS[1], ARGV[1], ARGV[2])
if #found == 0 then return 0 end
redis.call('XADD', KEYS[4], '*', 'place', ARGV[2], 'reason', ARGV[5], unpack(found[1][2]))
redis.call('XDEL', KEYS[1], ARGV[2])
if ARGV[3] ~= '' then
    redis.call('HINCRBY', KEYS[2], 'bytes', '-' .. ARGV[4])
    redis.call('HDEL', KEYS[3], ARGV[3])
end
return 1
