-- Puts an event into the stream if there is room and nobody holds its dedup_id: all of it, or nothing.
--
-- KEYS: stream, state, places, and the dedup_id's key if the event has one
-- ARGV: event id, entry, what it counts for in bytes, events_max, bytes_max, window in ms, run of Redis, 1 if the database was asked,
--   traceparent if it is followed
-- Answers 0: it is in; 1: no room; 2: who holds the dedup_id is not known here, ask the database; or the id of the event that holds it.
local stream, state, places, dedup = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local id, entry, bytes = ARGV[1], ARGV[2], tonumber(ARGV[3])

if dedup then
    local holder = redis.call('GET', dedup)
    if holder then return holder end
    if ARGV[8] ~= '1' and redis.call('HGET', state, 'complete') ~= ARGV[7] then return 2 end
end

local length = redis.call('XLEN', stream)
-- An empty stream counts for nothing, whatever was lost or deleted by hand.
local held = length > 0 and math.max(0, tonumber(redis.call('HGET', state, 'bytes') or 0)) or 0
if length >= tonumber(ARGV[4]) or held + bytes > tonumber(ARGV[5]) then return 1 end

local place
if ARGV[9] then
    place = redis.call('XADD', stream, '*', 'event', entry, 'traceparent', ARGV[9])
else
    place = redis.call('XADD', stream, '*', 'event', entry)
end
redis.call('HSET', state, 'bytes', string.format('%.0f', held + bytes))
redis.call('HSET', places, id, place)
if dedup then redis.call('SET', dedup, id, 'PX', ARGV[6]) end
return 0
