#!lua
-- PURPOSE  Pause, resume or close the sale for new orders.
-- KEYS     1 state
-- ARGV     1 format (1)  2 open, paused or closed  3 how often the state was set, as the caller saw it; none: any
-- RETURNS  1 | error FENCED, STALE, FORMAT: nothing written
-- TIME     not read
local INC = '0'
if ARGV[1] ~= '1' then return redis.error_reply('FORMAT unknown arguments') end
local st = redis.call('HMGET', KEYS[1], 'inc', 'state', 'turn')
if st[1] ~= INC or not st[2] or st[2] == 'frozen' then
  return redis.error_reply('FENCED frozen, rebuilt or gone')
end
if ARGV[3] and ARGV[3] ~= (st[3] or '0') then return redis.error_reply('STALE the state was set since') end
redis.call('HSET', KEYS[1], 'state', ARGV[2])
redis.call('HINCRBY', KEYS[1], 'turn', 1)
return 1
