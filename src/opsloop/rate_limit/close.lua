-- Settle, renew, release, find or undo a reservation; each of them at most once where once is what is meant.
--
-- KEYS  the reservation if there is one, buckets, quotas, concurrency sets
-- ARGV  1: msgpack {now_us, verb, buckets, quotas, leases, reservation, remember, late_us}
-- buckets  {gain, change, tick_us, ...} in sub-units     quotas  {change, ...}     leases  {lease_us, ...}
-- verb     settle, renew, release; find returns the reservation as it is kept; undo corrects without a reservation
--
-- Returns D and msgpack {now_us, levels, done}, N when nothing is held, L i when lease i ran out, H i when it was held
-- for the longest time, F and the reservation.
local now, verb, buckets, quotas, leases, reservation, remember, late = unpack(cmsgpack.unpack(ARGV[1]))
local slack = 3600000
if now == 0 then
    local time = redis.call('TIME')
    now, slack = time[1] * 1000000 + time[2], 0
end
local bucket_count, quota_count, lease_count = #buckets / 3, #quotas, #leases
local first, kept, settled, expires = 0, nil, 0, 0
if verb ~= 'undo' then
    kept = redis.call('GET', KEYS[1])
    if not kept then return 'N' end
    settled, expires = struct.unpack('<Bd', kept)
    if expires <= now then return 'N' end
    if verb == 'find' then return 'F' .. kept end
    if verb == 'settle' and settled == 1 then return 'N' end
    first = 1
end
local at_leases = first + bucket_count + quota_count

if verb == 'renew' then
    for i = 1, lease_count do
        local score = redis.call('ZSCORE', KEYS[at_leases + i], reservation)
        if not score or tonumber(score) <= now then return 'L' .. i end
        if now + leases[i] > expires then return 'H' .. i end
    end
    for i = 1, lease_count do
        redis.call('ZADD', KEYS[at_leases + i], 'XX', string.format('%.0f', now + leases[i]), reservation)
        redis.call('PEXPIRE', KEYS[at_leases + i], 3600000 + slack)
    end
    return 'D' .. cmsgpack.pack({now, {}, lease_count})
end

local levels, done = {}, 0
for i = 1, bucket_count do
    local key = KEYS[first + i]
    local gain, change, tick = buckets[3 * i - 2], buckets[3 * i - 1], buckets[3 * i]
    local raw, debt, moment = redis.call('GET', key), 0, math.floor(now / tick)
    if raw then
        local owed, last = struct.unpack('<dd', raw)
        if last >= moment then
            debt, moment = owed, last
        elseif moment - last < owed / gain then
            debt = owed - (moment - last) * gain
        end
    end
    debt = math.min(math.max(0, debt + change), 9007199254740991)
    levels[i] = debt
    if debt == 0 then
        redis.call('DEL', key)
    else
        local full = (moment + math.ceil(debt / gain)) * tick
        redis.call('SET', key, struct.pack('<dd', debt, moment), 'PX', math.ceil((full - now) / 1000) + 1 + slack)
    end
end
for i = 1, quota_count do
    local key = KEYS[first + bucket_count + i]
    local used = redis.call('GET', key)
    levels[bucket_count + i] = -1
    if used then  -- a period that is forgotten is over for good
        local after = math.min(math.max(0, tonumber(used) + quotas[i]), 9007199254740991)
        levels[bucket_count + i] = after
        redis.call('SET', key, string.format('%.0f', after), 'KEEPTTL')
    end
end
for i = 1, lease_count do
    done = done + redis.call('ZREM', KEYS[at_leases + i], reservation)
end
if verb == 'settle' then
    if remember then
        redis.call('SET', KEYS[1], struct.pack('<B', 1) .. string.sub(kept, 2), 'KEEPTTL')
    else
        redis.call('DEL', KEYS[1])
    end
elseif verb == 'release' and settled == 0 and not remember then
    if late > 0 then
        local until_us = math.min(expires, now + late)
        local header = struct.pack('<Bd', 0, until_us)
        redis.call('SET', KEYS[1], header .. string.sub(kept, 10), 'PX', math.ceil((until_us - now) / 1000) + slack)
    else
        redis.call('DEL', KEYS[1])
    end
end
return 'D' .. cmsgpack.pack({now, levels, done})
