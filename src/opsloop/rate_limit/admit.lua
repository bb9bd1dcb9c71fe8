-- Admit requests, each on all of its limits or on none: read all, check all, then write all.
--
-- For each request
-- KEYS  buckets, quotas, rolling quotas, the reservation if there is one, concurrency sets
-- ARGV  limits: how many buckets, quotas, rolling quotas and concurrency sets there are, then of each
--           bucket         gain, weight, capacity, tick_us, in sub-units
--           quota          amount, start_us and end_us of its period
--           rolling quota  amount, slice_us
--           set            amount, lease_us
--       asked: now_us, write, hold_us, refresh, reservation, then the units of each bucket, quota and rolling quota
--       how the client describes the request, kept with the reservation and never read here
-- The first two are msgpack, one value after the other, which takes no tables to read.
-- now_us is 0 for the server's own time; tests hand in another one, and then keys outlive the server's clock.
-- refresh says that this client has not prolonged the life of the concurrency sets for half of hold_us.
--
-- Answers with a letter and msgpack: A {now_us, levels, {}, {}, slices} with the number of the slice of each rolling quota,
-- R {now_us, levels, waits, rests}, S {now_us} when a quota's period is not now, or K and what was answered before under
-- this reservation. A wait of -1 never ends.
local function admit(base, limits, asked, description)
    limits, asked = {values(limits)}, {values(asked)}
    local bucket_count, quota_count, roll_count, lease_count = limits[1], limits[2], limits[3], limits[4]
    local write, hold, refresh, reservation = asked[2], asked[3], asked[4], asked[5]
    local now, slack = at_time(asked[1])
    local dated = bucket_count + quota_count
    local counted = dated + roll_count
    local quotas, rolls = 4 + bucket_count, 4 + 3 * bucket_count
    local marker = reservation ~= '' and counted + 1 or counted
    local state = marker > 0 and call('MGET', unpack(KEYS, base + 1, base + marker)) or {}
    local slots = base + marker
    local used_keys = marker + lease_count

    if marker > counted and state[marker] then
        local _, expires = unpacked('<Bd', state[marker])
        if expires > now then return 'K' .. state[marker], used_keys end
    end

    -- What each limit has to say; `state` becomes what goes back beside its level.
    local levels, waits, fits, moved = {}, {}, true, {}
    local at = 5
    for i = 1, bucket_count do
        local gain, weight, capacity, tick = limits[at], limits[at + 1], limits[at + 2], limits[at + 3]
        local debt, moment, other = bucket_at(state[i], gain, weight, tick, now)
        local cost = asked[5 + i] * weight
        local want = debt + cost
        if cost > capacity then
            waits[i], fits = -1, false
        elseif want > capacity then
            waits[i], fits = (moment + ceil((want - capacity) / gain)) * tick - now, false
        end
        if other then moved[i] = true end
        levels[i], state[i] = debt, moment
        at = at + 4
    end
    for i = bucket_count + 1, dated do
        local amount, cost, used = limits[at], asked[5 + i], tonumber(state[i] or 0)
        if now < limits[at + 1] or now >= limits[at + 2] then return 'S' .. cmsgpack.pack({now}), used_keys end
        if cost > amount then
            waits[i], fits = -1, false
        elseif used + cost > amount then
            waits[i], fits = limits[at + 2] - now, false
        end
        levels[i] = used
        at = at + 3
    end
    for i = dated + 1, counted do
        local amount, slice, cost = limits[at], limits[at + 1], asked[5 + i]
        local slices, used = slices_at(state[i], floor(now / slice))
        if cost > amount then
            waits[i], fits = -1, false
        elseif used + cost > amount then
            local left, oldest = used, slices[1] - SLICES
            repeat
                oldest = oldest + 1
                left = left - slices[oldest % SLICES + 2]
            until left + cost <= amount
            waits[i], fits = (oldest + SLICES) * slice - now, false
        end
        levels[i], state[i] = used, slices
        at = at + 2
    end
    local from = lease_count > 0 and string.format('(%.0f', now)
    for i = 1, lease_count do
        local key, amount = KEYS[slots + i], limits[at]
        local held = call('ZCOUNT', key, from, '+inf')
        if held >= amount then
            local first = call('ZRANGEBYSCORE', key, from, '+inf', 'WITHSCORES', 'LIMIT', held - amount, 1)
            waits[counted + i], fits = tonumber(first[2]) - now, false
        end
        levels[counted + i] = held
        at = at + 2
    end

    if not fits then
        if write then  -- from now on it is repaid at the new rate, whether or not this request is admitted
            for i in pairs(moved) do
                local gain, weight, _, tick = unpack(limits, 4 * i + 1, 4 * i + 4)
                owe(KEYS[base + i], levels[i], state[i], gain, weight, tick, now, slack)
            end
        end
        for i = 1, counted + lease_count do waits[i] = waits[i] or 0 end
        local rests = {}
        for i = 1, lease_count do
            local last = call('ZREVRANGE', KEYS[slots + i], 0, 0, 'WITHSCORES')
            rests[i] = last[2] and math.max(0, tonumber(last[2]) - now) or 0
        end
        return 'R' .. cmsgpack.pack({now, levels, waits, rests}), used_keys
    end

    at = 5
    for i = 1, bucket_count do
        local cost, weight = asked[5 + i], limits[at + 1]
        levels[i] = levels[i] + cost * weight
        if write and (cost > 0 or moved[i]) then
            owe(KEYS[base + i], levels[i], state[i], limits[at], weight, limits[at + 3], now, slack)
        end
        at = at + 4
    end
    for i = bucket_count + 1, dated do
        local cost = asked[5 + i]
        levels[i] = levels[i] + cost
        if write and not state[i] then
            call('SET', KEYS[base + i], cost, 'PX', ceil((limits[at + 2] - now + hold) / 1000) + slack)
        elseif write and cost > 0 then
            call('INCRBY', KEYS[base + i], cost)
        end
        at = at + 3
    end
    local numbers = {}
    for i = dated + 1, counted do
        local slices, slice, cost = state[i], limits[at + 1], asked[5 + i]
        numbers[i - dated] = slices[1]
        levels[i] = levels[i] + cost
        if write then
            local place = slices[1] % SLICES + 2
            slices[place] = slices[place] + cost
            local rest = (slices[1] + SLICES) * slice - now
            call('SET', KEYS[base + i], pack(rolling(), unpack(slices)), 'PX', ceil(rest / 1000) + 1 + slack)
        end
        at = at + 2
    end
    for i = 1, lease_count do
        local key, held = KEYS[slots + i], levels[counted + i]
        levels[counted + i] = held + 1
        if write then
            call('ZADD', key, now + limits[at + 1], reservation)
            -- A set that holds somebody was given its life by the first of them, and by every client that says refresh.
            if refresh or held == 0 then call('PEXPIRE', key, 2 * hold / 1000 + slack) end
            if now % 16 < 1 then call('ZREMRANGEBYSCORE', key, '-inf', now) end  -- what crashed holders left, at times
        end
        at = at + 2
    end
    local answer = cmsgpack.pack(roll_count > 0 and {now, levels, {}, {}, numbers} or {now, levels})
    if marker > counted then
        local kept = pack('<BdI4', 0, now + hold, #description) .. description .. answer
        call('SET', KEYS[base + marker], kept, 'PX', hold / 1000 + slack)
    end
    return 'A' .. answer, used_keys
end

return each(admit, 3)
