-- Settle, renew, release, find or undo reservations; each of them at most once where once is what is meant.
--
-- For each of them
-- KEYS  the reservation if there is one, buckets, quotas, rolling quotas, concurrency sets
-- ARGV  msgpack, one value after the other: now_us, verb, reservation, remember, late_us, hold_us, how many buckets, quotas,
--       rolling quotas and concurrency sets there are, then of each
--           bucket         gain, weight, change in sub-units, tick_us
--           quota          change
--           rolling quota  change, slice_us, number of the slice
--           set            lease_us
-- verb     settle, renew, release; find returns the reservation as it is kept; undo corrects without a reservation
--
-- Answers D and msgpack {now_us, levels, done}, N when nothing is held, L i when lease i ran out, H i when it was held
-- for the longest time, F and the reservation. A level of -1 is one of a period or a slice that is over for good.
local function corrected(value, change)
    return math.min(math.max(0, value + change), LARGEST)
end

local function renew(now, first, leases, reservation, expires, life)
    for i = 1, #leases do
        local score = call('ZSCORE', KEYS[first + i], reservation)
        if not score or tonumber(score) <= now then return 'L' .. i end
        if now + leases[i] > expires then return 'H' .. i end
    end
    for i = 1, #leases do
        call('ZADD', KEYS[first + i], 'XX', now + leases[i], reservation)
        call('PEXPIRE', KEYS[first + i], life)
    end
    return 'D' .. cmsgpack.pack({now, {}, #leases})
end

-- Keep a reservation that was settled or released as long as that makes sense.
local function keep(key, kept, now, verb, settled, expires, remember, late, slack)
    if verb == 'settle' and remember then
        call('SET', key, pack('<B', 1) .. string.sub(kept, 2), 'KEEPTTL')
    elseif verb == 'settle' or (settled == 0 and not remember and late == 0) then
        call('DEL', key)
    elseif settled == 0 and not remember then
        local until_us = math.min(expires, now + late)
        local header = pack('<Bd', 0, until_us)
        call('SET', key, header .. string.sub(kept, 10), 'PX', ceil((until_us - now) / 1000) + slack)
    end
end

local function close(base, numbers)
    numbers = {values(numbers)}
    local now, slack = at_time(numbers[1])
    local verb, reservation, remember, late, hold = unpack(numbers, 2, 6)
    local bucket_count, quota_count, roll_count, lease_count = unpack(numbers, 7, 10)
    local first, kept, settled, expires = base, nil, 0, 0
    if verb ~= 'undo' then first = base + 1 end
    local at_leases = first + bucket_count + quota_count + roll_count
    local used_keys = at_leases + lease_count - base
    if verb ~= 'undo' then
        kept = call('GET', KEYS[first])
        if not kept then return 'N', used_keys end
        settled, expires = unpacked('<Bd', kept)
        if expires <= now then return 'N', used_keys end
        if verb == 'find' then return 'F' .. kept, used_keys end
        if verb == 'settle' and settled == 1 then return 'N', used_keys end
        if verb == 'renew' then
            local leases, life = {unpack(numbers, 11)}, 2 * hold / 1000 + slack
            return renew(now, at_leases, leases, reservation, expires, life), used_keys
        end
    end

    -- Read all, give the slots back, and only then count. Where a slot of a Cluster is moving, a command fails on a key that
    -- is gone, perhaps by a request earlier in this call; this one is told again then, and must have counted nothing.
    local levels, done, at = {}, 0, 11
    local states = at_leases > first and call('MGET', unpack(KEYS, first + 1, at_leases)) or {}
    for i = 1, lease_count do
        done = done + call('ZREM', KEYS[at_leases + i], reservation)
    end
    for i = 1, bucket_count do
        local key, gain, weight, change, tick = KEYS[first + i], unpack(numbers, at, at + 3)
        local debt, moment = bucket_at(states[i], gain, weight, tick, now)
        debt = corrected(debt, change)
        levels[i] = debt
        owe(key, debt, moment, gain, weight, tick, now, slack)
        at = at + 4
    end
    for i = 1, quota_count do
        local at_count = bucket_count + i
        local key, used, level = KEYS[first + at_count], states[at_count], -1
        if used then
            level = corrected(tonumber(used), numbers[at])
            call('SET', key, level, 'KEEPTTL')
        end
        levels[#levels + 1] = level
        at = at + 1
    end
    for i = 1, roll_count do
        local at_count = bucket_count + quota_count + i
        local key, state, level = KEYS[first + at_count], states[at_count], -1
        local change, slice, number = unpack(numbers, at, at + 2)
        if state then
            local slices, used = slices_at(state, floor(now / slice))
            if number > slices[1] - SLICES then
                local place = number % SLICES + 2
                local after = corrected(slices[place], change)
                level, slices[place] = used + after - slices[place], after
                call('SET', key, pack(rolling(), unpack(slices)), 'KEEPTTL')
            end
        end
        levels[#levels + 1] = level
        at = at + 3
    end
    if verb ~= 'undo' then keep(KEYS[first], kept, now, verb, settled, expires, remember, late, slack) end
    return 'D' .. cmsgpack.pack({now, levels, done}), used_keys
end

return each(close, 1)
