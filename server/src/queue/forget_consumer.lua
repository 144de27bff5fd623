-- Forgets a consumer of the group that holds nothing. (Redis would forget with it what it holds, and nobody would be given that again.)
--
-- KEYS: stream
-- ARGV: group, consumer
local held = redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2])
if #held > 0 then return 0 end
redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
return 1
