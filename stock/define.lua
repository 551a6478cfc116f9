#!lua
-- PURPOSE  Change the definition: window, currency, limits, prices. An item that
--          is new begins without units; none is taken away.
-- KEYS     1 state
-- ARGV     1 format (1)  2 version  3 opens (ms)  4 closes (ms)  5 currency
--          6 limit per buyer  7 limit per identity (units, 0: none)
--          8 items n, then per item SKU and price (minor units)
-- RETURNS  1, or 0 if this version is in force already | error FENCED, FORMAT, or
--          STALE if a later version is: nothing written
-- TIME     not read
local INC = '0'
local A, n = ARGV, tonumber(ARGV[8])
if A[1] ~= '1' then return redis.error_reply('FORMAT unknown arguments') end
local fields = {'inc', 'state', 'ver'}
for i = 1, n do fields[3 + i] = 'a:' .. A[7 + 2 * i] end
local st = redis.call('HMGET', KEYS[1], unpack(fields))
if st[1] ~= INC or not st[2] or st[2] == 'frozen' then
  return redis.error_reply('FENCED frozen, rebuilt or gone')
end
local version, has = tonumber(A[2]), tonumber(st[3])
if version < has then return redis.error_reply('STALE a later definition is in force') end
if version == has then return 0 end

local set = {'ver', A[2], 'opens', A[3], 'closes', A[4], 'cur', A[5], 'lb', A[6], 'li', A[7]}
for i = 1, n do
  local sku, at = A[7 + 2 * i], #set
  set[at + 1], set[at + 2] = 'p:' .. sku, A[8 + 2 * i]
  if not st[3 + i] then
    for k, field in ipairs({'a:', 'h:', 's:', 'u:'}) do
      set[at + 1 + 2 * k], set[at + 2 + 2 * k] = field .. sku, 0
    end
  end
end
redis.call('HSET', KEYS[1], unpack(set))
return 1
