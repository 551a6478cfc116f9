#!lua
-- PURPOSE  Decide a group of baskets in the order they came: all lines of a
--          basket or none. A repeat is answered before anything else; then
--          state, window, price, limits, stock. What is taken goes into one
--          outbox entry. A refused basket leaves nothing behind.
-- KEYS     1 state  2 records  3 buyers  4 identities  5 outbox
-- ARGV     1 format (1)  2 definition version  3 head of the envelope
--          4 epoch  5 mode: '' or 'retake' (window, state, price, the sale's limits do not count)
--          6 baskets n  7 SKUs  8 shapes  9 identities
--          then the SKUs; then per shape (what several baskets ask for alike):
--          body hash, lines as in a record, total (minor units), max units per buyer (0: none, -1: repeats only)
--          and per identity, number of lines, and per line SKU index (from 1) and quantity;
--          then columns: n order ids, n buyers, n shape indexes and, if there
--          are identities, n joined hex forms, then all identities, raw
-- RETURNS  {now (ms), first seq or 0, limit per buyer, limit per identity,
--          one letter a basket (engine.Outcome; h: held and its outbox entry is
--          still there, o: sold out but units are held), then per replay or
--          mismatch its record} | error FENCED, STALE, FORMAT: nothing written
-- TIME     Redis' TIME, read once, ms
local INC = '0'
local MAX_ORDERS = 20 -- engine.MaxOrdersPerBuyer
local call, A, S = redis.call, ARGV, KEYS[1]

-- Everything is read, and every refusal made, before the first write.
if A[1] ~= '1' then return redis.error_reply('FORMAT unknown arguments') end
local retake, n, nsku, nid = A[5] == 'retake', tonumber(A[6]), tonumber(A[7]), tonumber(A[9])
local fields = {'inc', 'state', 'ver', 'opens', 'closes', 'lb', 'li', 'seq'}
for k = 1, nsku do
  local sku, f = A[9 + k], 5 + 3 * k
  fields[f + 1], fields[f + 2], fields[f + 3] = 'a:' .. sku, 'h:' .. sku, 'p:' .. sku
end
local st = call('HMGET', S, unpack(fields))
local state, lb, li, seq = st[2], tonumber(st[6]), tonumber(st[7]), tonumber(st[8])
if st[1] ~= INC or not seq or (state ~= 'open' and state ~= 'paused' and state ~= 'closed') then
  return redis.error_reply('FENCED frozen, rebuilt or gone')
end
if st[3] ~= A[2] then return redis.error_reply('STALE definition changed') end
local time = call('TIME')
local now = time[1] * 1000 + (time[2] - time[2] % 1000) / 1000
local refusal = false
if retake then -- decided when it was accepted first
elseif state == 'closed' then refusal = 'C'
elseif state == 'paused' then refusal = 'P'
elseif now < tonumber(st[4]) then refusal = 'E'
elseif now >= tonumber(st[5]) then refusal = 'C' end
local function lower(a, b) return (a == 0 or (b ~= 0 and b < a)) and b or a end
local avail, held = {}, {}
for k = 1, nsku do avail[k], held[k] = tonumber(st[6 + 3 * k]), tonumber(st[7 + 3 * k]) end

local at, shapes, open = 9 + nsku, {}, false
for k = 1, tonumber(A[8]) do
  local shape = {body = A[at + 1], units = 0, lines = tonumber(A[at + 6]), no = refusal, max = tonumber(A[at + 4]), li = tonumber(A[at + 5])}
  if shape.max < 0 then shape.no = 'T' end
  if not retake then shape.max, shape.li = lower(lb, shape.max), lower(li, shape.li) end
  shape.mid = '|' .. now .. '|' .. shape.max .. '.' .. shape.li .. '|' .. shape.body .. '|'
  shape.rest = '|' .. A[at + 2] .. '|' .. A[at + 3]
  local total = 0
  for j = 1, 2 * shape.lines, 2 do
    local sku, quantity = tonumber(A[at + 6 + j]), tonumber(A[at + 7 + j])
    shape[j], shape[j + 1], shape.units = sku, quantity, shape.units + quantity
    if not avail[sku] then shape.no = shape.no or 'U' end
    total = total + quantity * (st[8 + 3 * sku] or 0)
  end
  if not retake and total ~= tonumber(A[at + 3]) then shape.no = shape.no or '$' end
  open = open or not shape.no
  shapes[tostring(k)], at = shape, at + 6 + 2 * shape.lines
end
local ids, buyers, of, hex = at, at + n, at + 2 * n, at + 3 * n
local raw = at + 4 * n
local recs = call('HMGET', KEYS[2], unpack(A, ids + 1, ids + n))
local bcounts = open and call('HMGET', KEYS[3], unpack(A, buyers + 1, buyers + n))
local icounts = open and nid > 0 and call('HMGET', KEYS[4], unpack(A, raw + 1, raw + nid))

local first, out, reply = seq + 1, {}, {now, 0, lb, li, ''}
local published = {[tostring(first)] = false} -- by outbox entry
local bcount, icount, taken, made, lines, touched, blist = {}, {}, {}, {}, {A[3]}, {}, {}
local hold, prefix, nmade, nrec, nb = A[4] .. '.', '1H|' .. first .. '|', 0, 5, 0
for i = 1, n do
  local id, shape, rec = A[ids + i], shapes[A[of + i]], recs[i]
  rec = rec or taken[id] -- an id that came before in this group is decided once
  local letter = shape.no
  local nids = nid > 0 and (#A[hex + i] + 1 - (#A[hex + i] + 1) % 17) / 17 or 0
  if rec then
    local entry, body = string.match(rec, '^1H|([^|]*)|[^|]*|[^|]*|[^|]*|(%x+)|')
    letter = string.sub(rec, 2, 2)
    if (body or string.match(rec, '^1[SR]|[^|]*|(%x+)|')) ~= shape.body then
      letter = 'M'
    elseif entry and entry ~= '-' then
      if published[entry] == nil then
        published[entry] = #call('XRANGE', KEYS[5], entry .. '-0', entry .. '-0') == 0
      end
      if not published[entry] then letter = 'h' end
    end
    nrec, reply[nrec + 1] = nrec + 1, rec
  elseif not letter then
    local buyer, units = A[buyers + i], shape.units
    local count = bcount[buyer] or tonumber(bcounts[i] or 0)
    local orders = count % 1000 -- a buyer's counter is 1000 * units + orders
    if orders >= MAX_ORDERS or (shape.max > 0 and (count - orders) / 1000 + units > shape.max) then letter = 'L' end
    for j = 1, nids do
      local c = icount[A[raw + j]] or tonumber(icounts[raw + j - at - 4 * n] or 0)
      if shape.li > 0 and c + units > shape.li then letter = letter or 'I' end
    end
    if not letter then
      for j = 1, 2 * shape.lines, 2 do
        local sku = shape[j]
        if avail[sku] < shape[j + 1] then letter = (letter == 'O' or held[sku] == 0) and 'O' or 'o' end
      end
    end
    if not letter then
      letter, seq = 'A', seq + 1
      for j = 1, 2 * shape.lines, 2 do
        local sku, quantity = shape[j], shape[j + 1]
        avail[sku], held[sku], touched[sku] = avail[sku] - quantity, held[sku] + quantity, true
      end
      if not bcount[buyer] then nb = nb + 1; blist[nb] = buyer end
      bcount[buyer] = count + 1000 * units + 1
      for j = 1, nids do
        local identity = A[raw + j]
        icount[identity] = (icount[identity] or tonumber(icounts[raw + j - at - 4 * n] or 0)) + units
      end
      local tail = hold .. seq .. shape.mid .. buyer .. '|' .. (nids > 0 and A[hex + i] or '') .. shape.rest
      local record = prefix .. tail
      made[nmade + 1], made[nmade + 2], nmade = id, record, nmade + 2
      taken[id], lines[seq - first + 2] = record, id .. '|' .. tail
    end
  end
  out[i], raw = letter, raw + nids
end
reply[5] = table.concat(out)
if seq < first then return reply end
-- Writes. The XADD comes first: it alone could find a reason to fail.
call('XADD', KEYS[5], first .. '-0', 'e', table.concat(lines, '\n'))
call('HSET', KEYS[2], unpack(made))
local set = {'seq', seq}
for k in pairs(touched) do
  set[#set + 1], set[#set + 2], set[#set + 3], set[#set + 4] = fields[6 + 3 * k], avail[k], fields[7 + 3 * k], held[k]
end
call('HSET', S, unpack(set))
set, fields = {}, {}
for k = 1, nb do -- a number costs Redis an snprintf, and most counters are alike
  local c = bcount[blist[k]]
  fields[c] = fields[c] or tostring(c)
  set[2 * k - 1], set[2 * k] = blist[k], fields[c]
end
call('HSET', KEYS[3], unpack(set))
set, reply[2] = {}, first
for identity, units in pairs(icount) do set[#set + 1], set[#set + 2] = identity, units end
if #set > 0 then call('HSET', KEYS[4], unpack(set)) end
return reply
