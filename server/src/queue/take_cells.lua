-- Takes up to so many cells of a rate limit that all processes share: GCRA, with a minute's worth at once at most.
--
-- KEYS: the limit's
-- ARGV: requests a minute, cells wanted
-- Answers how many cells there were, and in how many microseconds there is the next one. By the clock of Redis, so that the processes' clocks
-- do not matter. The key holds when all cells will be back, in microseconds since 2024, which leaves room for fractions in a double.
local time = redis.call('TIME')
local now = (time[1] - 1704067200) * 1000000 + time[2]
local minute = 60000000
local interval = minute / ARGV[1]
local back = math.max(now, tonumber(redis.call('GET', KEYS[1]) or 0))
local cells = math.max(0, math.min(tonumber(ARGV[2]), math.floor((now + minute - back) / interval + 0.001)))
if cells > 0 then
    back = back + cells * interval
    redis.call('SET', KEYS[1], string.format('%.3f', back), 'PX', math.ceil((back - now) / 1000) + 1)
end
return {cells, math.ceil(math.max(0, back + interval - minute - now))}
