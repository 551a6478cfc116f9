#!lua
-- PURPOSE  Units that are neither held nor sold are taken out of the sale, as
--          many as there are up to the number asked, once per row id.
-- KEYS     1 state  2 rows
-- ARGV     1 format (1)  2 rows n, then columns: n row ids, n SKUs, n units
-- RETURNS  units taken out per row, by this call or before | error FENCED, FORMAT,
--          NOITEM: nothing written
-- TIME     not read
local INC = '0'
local A, n = ARGV, tonumber(ARGV[2])
if A[1] ~= '1' then return redis.error_reply('FORMAT unknown arguments') end
local fields = {'inc', 'state'}
for i = 1, n do fields[2 + i] = 'a:' .. A[2 + n + i] end
local st = redis.call('HMGET', KEYS[1], unpack(fields))
if st[1] ~= INC or not st[2] or st[2] == 'frozen' then
  return redis.error_reply('FENCED frozen, rebuilt or gone')
end
local done = redis.call('HMGET', KEYS[2], unpack(A, 3, 2 + n))

local less, rows, later, out = {}, {}, {}, {}
for i = 1, n do
  local row, sku = A[2 + i], A[2 + n + i]
  if not st[2 + i] then return redis.error_reply('NOITEM ' .. sku) end
  local taken = tonumber(done[i] or later[row])
  if not taken then
    taken = math.min(tonumber(A[2 + 2 * n + i]), st[2 + i] - (less[sku] or 0))
    less[sku] = (less[sku] or 0) + taken
    later[row], rows[#rows + 1], rows[#rows + 2] = taken, row, taken
  end
  out[i] = taken
end

if #rows > 0 then redis.call('HSET', KEYS[2], unpack(rows)) end
for sku, units in pairs(less) do -- 0 - units: Redis refuses the "-0" that Lua makes of -units
  redis.call('HINCRBY', KEYS[1], 'u:' .. sku, 0 - units)
  redis.call('HINCRBY', KEYS[1], 'a:' .. sku, 0 - units)
end
return out
