#!lua
-- PURPOSE  Tombstones whose replay window is over go. A record that still holds
--          units stays, whatever the caller believes.
-- KEYS     1 state  2 records
-- ARGV     1 format (1)  2 orders n, then n order ids
-- RETURNS  number of records deleted | error FENCED, FORMAT: nothing written
-- TIME     not read
local INC = '0'
local A, n = ARGV, tonumber(ARGV[2])
if A[1] ~= '1' then return redis.error_reply('FORMAT unknown arguments') end
local st = redis.call('HMGET', KEYS[1], 'inc', 'state')
if st[1] ~= INC or not st[2] or st[2] == 'frozen' then
  return redis.error_reply('FENCED frozen, rebuilt or gone')
end
local recs = redis.call('HMGET', KEYS[2], unpack(A, 3, 2 + n))

local gone = {}
for i = 1, n do
  if recs[i] and string.find(recs[i], '^1[SR]|') then gone[#gone + 1] = A[2 + i] end
end
if #gone == 0 then return 0 end
return redis.call('HDEL', KEYS[2], unpack(gone))
