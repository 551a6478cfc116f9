#!lua
-- PURPOSE  Orders were confirmed: their held units are sold, their records shrink
--          to tombstones. An order without a record gets its tombstone, one held
--          under another hold is left alone: in any order, any number of times,
--          the end is the same.
-- KEYS     1 state  2 records
-- ARGV     1 format (1)  2 orders n, then columns: n order ids, n holds
--          (epoch.seq), n body hashes (16 hex digits)
-- RETURNS  number of records settled | error FENCED, FORMAT: nothing written
-- TIME     Redis' TIME, read once, s: when the order was finished
local INC = '0'
local A, n = ARGV, tonumber(ARGV[2])
if A[1] ~= '1' then return redis.error_reply('FORMAT unknown arguments') end
local st = redis.call('HMGET', KEYS[1], 'inc', 'state')
if st[1] ~= INC or not st[2] or st[2] == 'frozen' then
  return redis.error_reply('FENCED frozen, rebuilt or gone')
end
local now = redis.call('TIME')[1]
local recs = redis.call('HMGET', KEYS[2], unpack(A, 3, 2 + n))

local set, later, moved, done = {}, {}, {}, 0
for i = 1, n do
  local id, hold = A[2 + i], A[2 + n + i]
  local rec = later[id] or recs[i]
  local has, lines = string.match(rec or '', '^1H|[^|]*|([^|]*)|[^|]*|[^|]*|%x+|[^|]*|[^|]*|([^|]*)|')
  if has == hold then
    done = done + 1
    for sku, quantity in string.gmatch(lines, '([^,*]+)%*(%d+)%*') do
      moved[sku] = (moved[sku] or 0) + quantity
    end
  end
  if not rec or has == hold then
    later[id] = '1S|' .. hold .. '|' .. A[2 + 2 * n + i] .. '|' .. now
    set[#set + 1], set[#set + 2] = id, later[id]
  end
end

for sku, quantity in pairs(moved) do
  redis.call('HINCRBY', KEYS[1], 'h:' .. sku, -quantity)
  redis.call('HINCRBY', KEYS[1], 's:' .. sku, quantity)
end
if #set > 0 then redis.call('HSET', KEYS[2], unpack(set)) end
return done
