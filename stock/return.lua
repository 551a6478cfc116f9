#!lua
-- PURPOSE  Confirmed orders came back, each once per row id: sold units are
--          available again and the counters fall. If the settle was overtaken
--          (still held under that hold) the units come from there and the record
--          becomes the tombstone that the settle would have left.
-- KEYS     1 state  2 records  3 buyers  4 identities  5 rows
-- ARGV     1 format (1)  2 returns n, then columns: n row ids, n order ids, n
--          holds, n body hashes, n buyers, n identities and n lines as in a record
-- RETURNS  units given back per row, by this call or before | error FENCED,
--          FORMAT: nothing written
-- TIME     Redis' TIME, read once, s: when the order was finished
local INC = '0'
local call, A, n = redis.call, ARGV, tonumber(ARGV[2])
if A[1] ~= '1' then return redis.error_reply('FORMAT unknown arguments') end
local st = call('HMGET', KEYS[1], 'inc', 'state')
if st[1] ~= INC or not st[2] or st[2] == 'frozen' then
  return redis.error_reply('FENCED frozen, rebuilt or gone')
end
local now = call('TIME')[1]
local done = call('HMGET', KEYS[5], unpack(A, 3, 2 + n))
local recs = call('HMGET', KEYS[2], unpack(A, 3 + n, 2 + 2 * n))

local moved, less, rows, set, later, out = {}, {{}, {}}, {}, {}, {}, {}
for i = 1, n do
  local row, id, hold = A[2 + i], A[2 + n + i], A[2 + 2 * n + i]
  local units = tonumber(done[i] or later[row])
  if not units then
    local held = string.match(later[id] or recs[i] or '', '^1H|[^|]*|([^|]*)|') == hold
    units = 0
    for sku, quantity in string.gmatch(A[2 + 6 * n + i], '([^,*]+)%*(%d+)%*') do
      local from = (held and 'h:' or 's:') .. sku
      moved[from], moved['a:' .. sku] = (moved[from] or 0) - quantity, (moved['a:' .. sku] or 0) + quantity
      units = units + quantity
    end
    local buyer = A[2 + 4 * n + i]
    less[1][buyer] = (less[1][buyer] or 0) + 1000 * units + 1
    for hex in string.gmatch(A[2 + 5 * n + i], '%x+') do
      local raw = string.gsub(hex, '%x%x', function(x) return string.char(tonumber(x, 16)) end)
      less[2][raw] = (less[2][raw] or 0) + units
    end
    if held then
      later[id] = '1S|' .. hold .. '|' .. A[2 + 3 * n + i] .. '|' .. now
      set[#set + 1], set[#set + 2] = id, later[id]
    end
    later[row], rows[#rows + 1], rows[#rows + 2] = units, row, units
  end
  out[i] = units
end

if #rows > 0 then call('HSET', KEYS[5], unpack(rows)) end
for field, count in pairs(moved) do call('HINCRBY', KEYS[1], field, count) end
for k = 1, 2 do
  for name, count in pairs(less[k]) do -- a counter at zero goes: memory stays flat
    if call('HINCRBY', KEYS[2 + k], name, -count) == 0 then call('HDEL', KEYS[2 + k], name) end
  end
end
if #set > 0 then call('HSET', KEYS[2], unpack(set)) end
return out
