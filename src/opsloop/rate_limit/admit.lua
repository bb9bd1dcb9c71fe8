-- Admit requests, each on all of its limits or on none: read all, check all, then write all.
--
-- For each request
-- KEYS  buckets, quotas, rolling quotas, the reservation if there is one, concurrency sets
-- ARGV  msgpack {now_us, write, {rates, amounts, rolls, leases}, costs, periods, reservation, hold_us, refresh}
--       how the client describes the request, kept with the reservation and never read here
-- rates  {gain, weight, capacity, tick_us, ...} of buckets, in sub-units     amounts  {amount, ...} of quotas
-- rolls  {amount, slice_us, ...} of rolling quotas     leases {amount, lease_us, ...} of slots
-- costs  {units, ...} of buckets and quotas     periods  {start_us, end_us, ...} of quotas
-- now_us is 0 for the server's own time; tests hand in another one, and then keys outlive the server's clock.
-- refresh says that this client has not prolonged the life of the concurrency sets for half of hold_us.
--
-- Answers with a letter and msgpack: A {now_us, levels, {}, {}, slices} with the number of the slice of each rolling quota,
-- R {now_us, levels, waits, rests}, S {now_us} when a quota's period is not now, or K and what was answered before under
-- this reservation. A wait of -1 never ends.
local function admit(base, numbers, description)
    local now, write, limits, costs, periods, reservation, hold, refresh = unpack(cmsgpack.unpack(numbers))
    local rates, amounts, rolls, leases = limits[1], limits[2], limits[3], limits[4]
    local slack = 3600000
    if now == 0 then
        now, slack = server_time(), 0
    end
    local bucket_count, quota_count, roll_count, lease_count = #rates / 4, #amounts, #rolls / 2, #leases / 2
    local dated = bucket_count + quota_count
    local counted = dated + roll_count
    local marker = reservation ~= '' and counted + 1 or counted
    local state = marker > 0 and call('MGET', unpack(KEYS, base + 1, base + marker)) or {}
    local slots = base + marker
    local used_keys = marker + lease_count

    if marker > counted and state[marker] then
        local _, expires = unpacked('<Bd', state[marker])
        if expires > now then return 'K' .. state[marker], used_keys end
    end
    for at = 1, #periods, 2 do
        if now < periods[at] or now >= periods[at + 1] then return 'S' .. cmsgpack.pack({now}), used_keys end
    end

    local levels, after, moments, waits, fits = {}, {}, {}, {}, true
    local moved, any_moved = {}, false
    local at = 1
    for i = 1, bucket_count do
        local gain, weight, capacity, tick = rates[at], rates[at + 1], rates[at + 2], rates[at + 3]
        local debt, moment, other = bucket_at(state[i], gain, weight, tick, now)
        local cost = costs[i] * weight
        if other then moved[i], any_moved = true, true end
        local want, wait = debt + cost, 0
        if cost > capacity then
            wait, fits = -1, false
        elseif want > capacity then
            wait, fits = (moment + ceil((want - capacity) / gain)) * tick - now, false
        end
        levels[i], after[i], moments[i], waits[i] = debt, want, moment, wait
        at = at + 4
    end
    for i = bucket_count + 1, dated do
        local used, amount, cost, wait = tonumber(state[i] or 0), amounts[i - bucket_count], costs[i], 0
        if cost > amount then
            wait, fits = -1, false
        elseif used + cost > amount then
            wait, fits = periods[2 * (i - bucket_count)] - now, false
        end
        levels[i], after[i], waits[i] = used, used + cost, wait
    end
    for i = dated + 1, counted do
        local roll = 2 * (i - dated)
        local amount, slice, cost, wait = rolls[roll - 1], rolls[roll], costs[i], 0
        local slices, used = slices_at(state[i], floor(now / slice))
        if cost > amount then
            wait, fits = -1, false
        elseif used + cost > amount then
            local left, oldest = used, slices[1] - SLICES
            repeat
                oldest = oldest + 1
                left = left - slices[oldest % SLICES + 2]
            until left + cost <= amount
            wait, fits = (oldest + SLICES) * slice - now, false
        end
        levels[i], after[i], moments[i], waits[i] = used, used + cost, slices, wait
    end
    local from = lease_count > 0 and string.format('(%.0f', now)
    for i = 1, lease_count do
        local key, amount, wait = KEYS[slots + i], leases[2 * i - 1], 0
        local held = call('ZCOUNT', key, from, '+inf')
        if held >= amount then
            local first = call('ZRANGEBYSCORE', key, from, '+inf', 'WITHSCORES', 'LIMIT', held - amount, 1)
            wait, fits = tonumber(first[2]) - now, false
        end
        levels[counted + i], after[counted + i], waits[counted + i] = held, held + 1, wait
    end

    if not fits then
        if any_moved and write then  -- from now on it is repaid at the new rate, whether or not this request is admitted
            for i = 1, bucket_count do
                local gain, weight, _, tick = unpack(rates, 4 * i - 3, 4 * i)
                if moved[i] then owe(KEYS[base + i], levels[i], moments[i], gain, weight, tick, now, slack) end
            end
        end
        local rests = {}
        for i = 1, lease_count do
            local last = call('ZREVRANGE', KEYS[slots + i], 0, 0, 'WITHSCORES')
            rests[i] = last[2] and math.max(0, tonumber(last[2]) - now) or 0
        end
        return 'R' .. cmsgpack.pack({now, levels, waits, rests}), used_keys
    end
    local numbered = {}
    for i = dated + 1, counted do numbered[i - dated] = moments[i][1] end
    local answer = cmsgpack.pack(roll_count > 0 and {now, after, {}, {}, numbered} or {now, after})
    if not write then return 'A' .. answer, used_keys end

    at = 1
    for i = 1, bucket_count do
        if costs[i] > 0 or moved[i] then
            owe(KEYS[base + i], after[i], moments[i], rates[at], rates[at + 1], rates[at + 3], now, slack)
        end
        at = at + 4
    end
    for i = bucket_count + 1, dated do
        local rest = periods[2 * (i - bucket_count)] - now
        call('SET', KEYS[base + i], after[i], 'PX', ceil((rest + hold) / 1000) + slack)
    end
    for i = dated + 1, counted do
        local slices = moments[i]
        local place, rest = slices[1] % SLICES + 2, (slices[1] + SLICES) * rolls[2 * (i - dated)] - now
        slices[place] = slices[place] + costs[i]
        call('SET', KEYS[base + i], pack(ROLLING, unpack(slices)), 'PX', ceil(rest / 1000) + 1 + slack)
    end
    for i = 1, lease_count do
        local key = KEYS[slots + i]
        call('ZADD', key, now + leases[2 * i], reservation)
        -- A set that holds somebody was given its life by the first of them, and by every client that says refresh.
        if refresh or levels[counted + i] == 0 then call('PEXPIRE', key, 2 * hold / 1000 + slack) end
        if now % 16 < 1 then call('ZREMRANGEBYSCORE', key, '-inf', now) end  -- what crashed holders left, now and then
    end
    if marker > counted then
        local kept = pack('<BdI4', 0, now + hold, #description) .. description .. answer
        call('SET', KEYS[base + marker], kept, 'PX', hold / 1000 + slack)
    end
    return 'A' .. answer, used_keys
end

return each(admit, 2)
