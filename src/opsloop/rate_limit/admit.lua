-- Admit a request on all of its limits or on none: read all, check all, then write all.
--
-- KEYS  buckets, quotas, the reservation if there is one, concurrency sets
-- ARGV  1: msgpack {now_us, write, buckets, quotas, leases, reservation, hold_us}
--       2: how the client describes the request, kept with the reservation and never read here
-- buckets  {gain, cost, capacity, tick_us, ...} in sub-units     quotas  {start_us, end_us, amount, cost, ...}
-- leases   {amount, lease_us, ...}
-- now_us is 0 for the server's own time; tests hand in another one, and then keys outlive the server's clock.
--
-- Returns a letter and msgpack: A or R {now_us, levels, waits, rests}, S {now_us} when a quota's period is not now,
-- or K and what was answered before under this reservation. A wait of -1 never ends.
--
-- Numbers go to commands as they are, for Redis writes 17 digits of them; tostring() and '..' write 14, so are not used.
local call, floor, ceil, pack, unpacked = redis.call, math.floor, math.ceil, struct.pack, struct.unpack
local now, write, buckets, quotas, leases, reservation, hold = unpack(cmsgpack.unpack(ARGV[1]))
local slack = 3600000
if now == 0 then
    local time = call('TIME')
    now, slack = time[1] * 1000000 + time[2], 0
end
local bucket_count, quota_count, lease_count = #buckets / 4, #quotas / 4, #leases / 2
local counted = bucket_count + quota_count
local marker = reservation ~= '' and counted + 1 or counted
local state = marker > 0 and call('MGET', unpack(KEYS, 1, marker)) or {}

if marker > counted and state[marker] then
    local _, expires = unpacked('<Bd', state[marker])
    if expires > now then return 'K' .. state[marker] end
end
for at = 1, #quotas, 4 do
    if now < quotas[at] or now >= quotas[at + 1] then return 'S' .. cmsgpack.pack({now}) end
end

local levels, after, moments, waits, fits = {}, {}, {}, {}, true
local at = 1
for i = 1, bucket_count do
    local gain, capacity, tick = buckets[at], buckets[at + 2], buckets[at + 3]
    local debt, moment = 0, floor(now / tick)
    if state[i] then
        local owed, last = unpacked('<dd', state[i])
        if last >= moment then
            debt, moment = owed, last  -- a clock that goes back stands still
        elseif moment - last < owed / gain then
            debt = owed - (moment - last) * gain
        end
    end
    local want, wait = debt + buckets[at + 1], 0
    if buckets[at + 1] > capacity then
        wait, fits = -1, false
    elseif want > capacity then
        wait, fits = (moment + ceil((want - capacity) / gain)) * tick - now, false
    end
    levels[i], after[i], moments[i], waits[i] = debt, want, moment, wait
    at = at + 4
end
at = 1
for i = bucket_count + 1, counted do
    local used, amount, cost, wait = tonumber(state[i] or 0), quotas[at + 2], quotas[at + 3], 0
    if cost > amount then
        wait, fits = -1, false
    elseif used + cost > amount then
        wait, fits = quotas[at + 1] - now, false
    end
    levels[i], after[i], waits[i] = used, used + cost, wait
    at = at + 4
end
local from = lease_count > 0 and string.format('(%.0f', now)
for i = 1, lease_count do
    local key, amount, wait = KEYS[marker + i], leases[2 * i - 1], 0
    local held = call('ZCOUNT', key, from, '+inf')
    if held >= amount then
        local first = call('ZRANGEBYSCORE', key, from, '+inf', 'WITHSCORES', 'LIMIT', held - amount, 1)
        wait, fits = tonumber(first[2]) - now, false
    end
    levels[counted + i], after[counted + i], waits[counted + i] = held, held + 1, wait
end

if not fits then
    local rests = {}
    for i = 1, lease_count do
        local last = call('ZREVRANGE', KEYS[marker + i], 0, 0, 'WITHSCORES')
        rests[i] = last[2] and math.max(0, tonumber(last[2]) - now) or 0
    end
    return 'R' .. cmsgpack.pack({now, levels, waits, rests})
end
local answer = cmsgpack.pack({now, after})
if not write then return 'A' .. answer end

at = 1
for i = 1, bucket_count do
    if buckets[at + 1] > 0 then
        local full = (moments[i] + ceil(after[i] / buckets[at])) * buckets[at + 3]
        call('SET', KEYS[i], pack('<dd', after[i], moments[i]), 'PX', ceil((full - now) / 1000) + 1 + slack)
    end
    at = at + 4
end
at = 2
for i = bucket_count + 1, counted do
    call('SET', KEYS[i], after[i], 'PX', ceil((quotas[at] - now + hold) / 1000) + slack)
    at = at + 4
end
for i = 1, lease_count do
    local key = KEYS[marker + i]
    call('ZADD', key, now + leases[2 * i], reservation)
    call('PEXPIRE', key, hold / 1000 + slack)
    if now % 16 < 1 then call('ZREMRANGEBYSCORE', key, '-inf', now) end  -- what crashed holders left, now and then
end
if marker > counted then
    call('SET', KEYS[marker], pack('<BdI4', 0, now + hold, #ARGV[2]) .. ARGV[2] .. answer, 'PX', hold / 1000 + slack)
end
return 'A' .. answer
