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
local now, write, buckets, quotas, leases, reservation, hold = unpack(cmsgpack.unpack(ARGV[1]))
local slack = 3600000
if now == 0 then
    local time = redis.call('TIME')
    now, slack = time[1] * 1000000 + time[2], 0
end
local bucket_count, quota_count, lease_count = #buckets / 4, #quotas / 4, #leases / 2
local counted = bucket_count + quota_count
local marker = reservation ~= '' and counted + 1 or counted
local state = marker > 0 and redis.call('MGET', unpack(KEYS, 1, marker)) or {}

if marker > counted and state[marker] then
    local _, expires = struct.unpack('<Bd', state[marker])
    if expires > now then return 'K' .. state[marker] end
end
for at = 1, #quotas, 4 do
    if now < quotas[at] or now >= quotas[at + 1] then return 'S' .. cmsgpack.pack({now}) end
end

local levels, waits, rests, after, moments, fits = {}, {}, {}, {}, {}, true
for i = 1, bucket_count do
    local at = 4 * i - 3
    local gain, cost, capacity, tick = buckets[at], buckets[at + 1], buckets[at + 2], buckets[at + 3]
    local debt, moment = 0, math.floor(now / tick)
    local started = moment
    if state[i] then
        local owed, last = struct.unpack('<dd', state[i])
        if last >= moment then
            debt, moment = owed, last  -- a clock that goes back stands still
        elseif moment - last < owed / gain then
            debt = owed - (moment - last) * gain
        end
    end
    local want = debt + cost
    levels[i], waits[i], after[i], moments[i] = debt, 0, want, moment
    if cost > capacity then
        waits[i] = -1
    elseif want > capacity then
        waits[i] = (moment + math.ceil((want - capacity) / gain)) * tick - now
    end
    fits = fits and waits[i] == 0
end
for i = bucket_count + 1, counted do
    local at = 4 * (i - bucket_count) - 3
    local ends, amount, cost = quotas[at + 1], quotas[at + 2], quotas[at + 3]
    local used = tonumber(state[i] or 0)
    levels[i], waits[i], after[i] = used, 0, used + cost
    if cost > amount then
        waits[i] = -1
    elseif used + cost > amount then
        waits[i] = ends - now
    end
    fits = fits and waits[i] == 0
end
local from = string.format('(%.0f', now)
for i = 1, lease_count do
    local key, amount = KEYS[marker + i], leases[2 * i - 1]
    local held = redis.call('ZCOUNT', key, from, '+inf')
    levels[counted + i], waits[counted + i], after[counted + i] = held, 0, held + 1
    if held >= amount then
        local first = redis.call('ZRANGEBYSCORE', key, from, '+inf', 'WITHSCORES', 'LIMIT', held - amount, 1)
        waits[counted + i] = tonumber(first[2]) - now
        fits = false
    end
end

if not fits then
    for i = 1, lease_count do
        local last = redis.call('ZREVRANGE', KEYS[marker + i], 0, 0, 'WITHSCORES')
        rests[i] = last[2] and math.max(0, tonumber(last[2]) - now) or 0
    end
    return 'R' .. cmsgpack.pack({now, levels, waits, rests})
end
local answer = cmsgpack.pack({now, after, waits, rests})
if not write then return 'A' .. answer end

for i = 1, bucket_count do
    local at = 4 * i - 3
    if buckets[at + 1] > 0 then
        local full = (moments[i] + math.ceil(after[i] / buckets[at])) * buckets[at + 3]
        redis.call('SET', KEYS[i], struct.pack('<dd', after[i], moments[i]), 'PX',
            math.ceil((full - now) / 1000) + 1 + slack)
    end
end
for i = bucket_count + 1, counted do
    local ends = quotas[4 * (i - bucket_count) - 2]
    redis.call('SET', KEYS[i], string.format('%.0f', after[i]), 'PX', math.ceil((ends - now + hold) / 1000) + slack)
end
for i = 1, lease_count do
    local key = KEYS[marker + i]
    redis.call('ZREMRANGEBYSCORE', key, '-inf', string.format('%.0f', now))
    redis.call('ZADD', key, string.format('%.0f', now + leases[2 * i]), reservation)
    redis.call('PEXPIRE', key, hold / 1000 + slack)
end
if marker > counted then
    local header = struct.pack('<BdI4', 0, now + hold, #ARGV[2])
    redis.call('SET', KEYS[marker], header .. ARGV[2] .. answer, 'PX', hold / 1000 + slack)
end
return 'A' .. answer
