#!lua
-- PURPOSE  Orders were cancelled: their held units are available again, their
--          buyers' and identities' counters fall, their records shrink to
--          tombstones. An order without a record gets its tombstone, one held
--          under another hold is left alone.
-- KEYS     1 state  2 records  3 buyers  4 identities
-- ARGV     1 format (1)  2 orders n, then columns: n order ids, n holds
--          (epoch.seq), n body hashes (16 hex digits)
-- RETURNS  number of records released | error FENCED, FORMAT: nothing written
-- TIME     Redis' TIME, read once, s: when the order was finished
local INC = '0'
local call, A, n = redis.call, ARGV, tonumber(ARGV[2])
if A[1] ~= '1' then return redis.error_reply('FORMAT unknown arguments') end
local st = call('HMGET', KEYS[1], 'inc', 'state')
if st[1] ~= INC or not st[2] or st[2] == 'frozen' then
  return redis.error_reply('FENCED frozen, rebuilt or gone')
end
local now = call('TIME')[1]
local recs = call('HMGET', KEYS[2], unpack(A, 3, 2 + n))

local set, later, moved, less, done = {}, {}, {}, {{}, {}}, 0
for i = 1, n do
  local id, hold = A[2 + i], A[2 + n + i]
  local rec = later[id] or recs[i]
  local has, buyer, ids, lines = string.match(rec or '',
    '^1H|[^|]*|([^|]*)|[^|]*|[^|]*|%x+|([^|]*)|([^|]*)|([^|]*)|')
  if has == hold then
    local units = 0
    for sku, quantity in string.gmatch(lines, '([^,*]+)%*(%d+)%*') do
      moved[sku], units = (moved[sku] or 0) + quantity, units + quantity
    end
    less[1][buyer] = (less[1][buyer] or 0) + 1000 * units + 1
    for hex in string.gmatch(ids, '%x+') do
      local raw = string.gsub(hex, '%x%x', function(x) return string.char(tonumber(x, 16)) end)
      less[2][raw] = (less[2][raw] or 0) + units
    end
    done = done + 1
  end
  if not rec or has == hold then
    later[id] = '1R|' .. hold .. '|' .. A[2 + 2 * n + i] .. '|' .. now
    set[#set + 1], set[#set + 2] = id, later[id]
  end
end

for sku, quantity in pairs(moved) do
  call('HINCRBY', KEYS[1], 'h:' .. sku, -quantity)
  call('HINCRBY', KEYS[1], 'a:' .. sku, quantity)
end
for k = 1, 2 do
  for name, count in pairs(less[k]) do -- a counter at zero goes: memory stays flat
    if call('HINCRBY', KEYS[2 + k], name, -count) == 0 then call('HDEL', KEYS[2 + k], name) end
  end
end
if #set > 0 then call('HSET', KEYS[2], unpack(set)) end
return done
