-- The database has these events: takes them out of the group and the stream. What another process has taken out before counts once.
--
-- KEYS: stream, state, places
-- ARGV: group, bytes that an earlier call could not write down, then for each event: place in the stream, event id, what it counts for in bytes
-- Answers how many events the stream has left, and bytes that could not be written down: a Redis whose memory is full lets entries be deleted, and
-- no number be changed.
local freed = tonumber(ARGV[2])
for at = 3, #ARGV, 3 do
    redis.call('XACK', KEYS[1], ARGV[1], ARGV[at])
    if redis.call('XDEL', KEYS[1], ARGV[at]) == 1 then
        freed = freed + tonumber(ARGV[at + 2])
        redis.call('HDEL', KEYS[3], ARGV[at + 1])
    end
end
if freed > 0 and type(redis.pcall('HINCRBY', KEYS[2], 'bytes', -freed)) ~= 'table' then freed = 0 end
return {redis.call('XLEN', KEYS[1]), freed}
