-- Admit requests, each on all of its limits or on none: read all, check all, then write all.
--
-- For each request
-- KEYS  buckets, quotas, the reservation if there is one, concurrency sets
-- ARGV  msgpack {now_us, write, {rates, amounts, leases}, costs, periods, reservation, hold_us}
--       how the client describes the request, kept with the reservation and never read here
-- rates  {gain, weight, capacity, tick_us, ...} of buckets, in sub-units     amounts  {amount, ...} of quotas
-- leases {amount, lease_us, ...} of slots     costs  {units, ...} of buckets and quotas     periods  {start_us, end_us, ...}
-- now_us is 0 for the server's own time; tests hand in another one, and then keys outlive the server's clock.
--
-- Answers with a letter and msgpack: A or R {now_us, levels, waits, rests}, S {now_us} when a quota's period is not now,
-- or K and what was answered before under this reservation. A wait of -1 never ends.
-- Returns one request's answer as it is, those of several each with its length in front.
--
-- Numbers go to commands as they are, for Redis writes 17 digits of them; tostring() and '..' write 14, so are not used.
local call, floor, ceil, pack, unpacked = redis.call, math.floor, math.ceil, struct.pack, struct.unpack
local used_keys, time = 0, nil

local function server_time()
    if not time then
        local now = call('TIME')
        time = now[1] * 1000000 + now[2]
    end
    return time
end

local function admit(base, numbers, description)
    local now, write, limits, costs, periods, reservation, hold = unpack(cmsgpack.unpack(numbers))
    local rates, amounts, leases = limits[1], limits[2], limits[3]
    local slack = 3600000
    if now == 0 then
        now, slack = server_time(), 0
    end
    local bucket_count, quota_count, lease_count = #rates / 4, #amounts, #leases / 2
    local counted = bucket_count + quota_count
    local marker = reservation ~= '' and counted + 1 or counted
    local state = marker > 0 and call('MGET', unpack(KEYS, base + 1, base + marker)) or {}
    local slots = base + marker
    used_keys = slots + lease_count

    if marker > counted and state[marker] then
        local _, expires = unpacked('<Bd', state[marker])
        if expires > now then return 'K' .. state[marker] end
    end
    for at = 1, #periods, 2 do
        if now < periods[at] or now >= periods[at + 1] then return 'S' .. cmsgpack.pack({now}) end
    end

    local levels, after, moments, waits, fits = {}, {}, {}, {}, true
    local at = 1
    for i = 1, bucket_count do
        local gain, cost, capacity, tick = rates[at], costs[i] * rates[at + 1], rates[at + 2], rates[at + 3]
        local debt, moment = 0, floor(now / tick)
        if state[i] then
            local owed, last = unpacked('<dd', state[i])
            if last >= moment then
                debt, moment = owed, last  -- a clock that goes back stands still
            elseif moment - last < owed / gain then
                debt = owed - (moment - last) * gain
            end
        end
        local want, wait = debt + cost, 0
        if cost > capacity then
            wait, fits = -1, false
        elseif want > capacity then
            wait, fits = (moment + ceil((want - capacity) / gain)) * tick - now, false
        end
        levels[i], after[i], moments[i], waits[i] = debt, want, moment, wait
        at = at + 4
    end
    for i = bucket_count + 1, counted do
        local used, amount, cost, wait = tonumber(state[i] or 0), amounts[i - bucket_count], costs[i], 0
        if cost > amount then
            wait, fits = -1, false
        elseif used + cost > amount then
            wait, fits = periods[2 * (i - bucket_count)] - now, false
        end
        levels[i], after[i], waits[i] = used, used + cost, wait
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
        local rests = {}
        for i = 1, lease_count do
            local last = call('ZREVRANGE', KEYS[slots + i], 0, 0, 'WITHSCORES')
            rests[i] = last[2] and math.max(0, tonumber(last[2]) - now) or 0
        end
        return 'R' .. cmsgpack.pack({now, levels, waits, rests})
    end
    local answer = cmsgpack.pack({now, after})
    if not write then return 'A' .. answer end

    at = 1
    for i = 1, bucket_count do
        if costs[i] > 0 then
            local full = (moments[i] + ceil(after[i] / rates[at])) * rates[at + 3]
            call('SET', KEYS[base + i], pack('<dd', after[i], moments[i]), 'PX', ceil((full - now) / 1000) + 1 + slack)
        end
        at = at + 4
    end
    for i = bucket_count + 1, counted do
        local rest = periods[2 * (i - bucket_count)] - now
        call('SET', KEYS[base + i], after[i], 'PX', ceil((rest + hold) / 1000) + slack)
    end
    for i = 1, lease_count do
        local key = KEYS[slots + i]
        call('ZADD', key, now + leases[2 * i], reservation)
        call('PEXPIRE', key, hold / 1000 + slack)
        if now % 16 < 1 then call('ZREMRANGEBYSCORE', key, '-inf', now) end  -- what crashed holders left, now and then
    end
    if marker > counted then
        call('SET', KEYS[base + marker], pack('<BdI4', 0, now + hold, #description) .. description .. answer, 'PX', hold / 1000 + slack)
    end
    return 'A' .. answer
end

if #ARGV == 2 then return admit(0, ARGV[1], ARGV[2]) end
local answers = {}
for request = 1, #ARGV, 2 do
    local answer = admit(used_keys, ARGV[request], ARGV[request + 1])
    answers[#answers + 1] = pack('<I4', #answer)
    answers[#answers + 1] = answer
end
return table.concat(answers)
