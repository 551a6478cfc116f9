#!lua
-- PURPOSE  Pause, resume or close the sale for new orders.
-- KEYS     1 state
-- ARGV     1 format (1)  2 open, paused or closed
-- RETURNS  1 | error FENCED, FORMAT: nothing written
-- TIME     not read
local INC = '0'
if ARGV[1] ~= '1' then return redis.error_reply('FORMAT unknown arguments') end
local st = redis.call('HMGET', KEYS[1], 'inc', 'state')
if st[1] ~= INC or not st[2] or st[2] == 'frozen' then
  return redis.error_reply('FENCED frozen, rebuilt or gone')
end
redis.call('HSET', KEYS[1], 'state', ARGV[2])
return 1
