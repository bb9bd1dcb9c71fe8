-- What both scripts count with; it stands in front of each of them.
--
-- Numbers go to commands as they are, for Redis writes 17 digits of them; tostring() and '..' write 14, so are not used.
local call, floor, ceil = redis.call, math.floor, math.ceil
local pack, unpacked, values = struct.pack, struct.unpack, cmsgpack.unpack
local LARGEST = 9007199254740991
local BUCKET = '<ddddI2'  -- sub-units owed, at which tick, and the numbers that they mean something under
local SLICES = 61  -- of a rolling quota: those that lie in its window, and the one that is leaving it
local time = call('TIME')
local SERVER_US = time[1] * 1000000 + time[2]

-- Return the server's time, or another one that was handed in, and by how many milliseconds longer keys live then.
local function at_time(now_us)
    if now_us == 0 then return SERVER_US, 0 end
    return now_us, 3600000
end

-- Return what a bucket owes, in sub-units, the tick at which it does, and whether it was moved to these numbers. What was
-- counted under other numbers, before the policy changed, was repaid at its own rate until now, and is taken over in units.
local function bucket_at(state, gain, weight, tick, now)
    local moment = floor(now / tick)
    if not state then return 0, moment, false end
    local owed, last, its_gain, its_weight, its_tick = unpacked(BUCKET, state)
    local elapsed = floor(now / its_tick) - last
    if elapsed > 0 then  -- a clock that goes back stands still
        if elapsed >= owed / its_gain then return 0, moment, false end
        owed, last = owed - elapsed * its_gain, last + elapsed
    end
    if its_weight ~= weight then
        local units = floor(owed / its_weight)
        owed = math.min(units * weight + ceil((owed - units * its_weight) * weight / its_weight), LARGEST)
    end
    local moved = its_gain ~= gain or its_weight ~= weight or its_tick ~= tick
    return owed, its_tick == tick and last or math.max(moment, ceil(last * its_tick / tick)), moved
end

-- Write what a bucket owes; it lives until it is full again.
local function owe(key, owed, moment, gain, weight, tick, now, slack)
    if owed == 0 then return call('DEL', key) end
    local full = (moment + ceil(owed / gain)) * tick
    call('SET', key, pack(BUCKET, owed, moment, gain, weight, tick), 'PX', ceil((full - now) / 1000) + 1 + slack)
end

-- Return the form of a rolling quota: the number of the latest slice, and the units of each.
local function rolling()
    return '<' .. string.rep('d', SLICES + 1)
end

-- Return the slices of a rolling quota when `number` is the latest, and the units in them. Slice n is kept at n % SLICES + 2.
local function slices_at(state, number)
    local slices = {number}
    if state then
        slices = {unpacked(rolling(), state)}
        slices[SLICES + 2] = nil
        for passed = slices[1] + 1, math.min(number, slices[1] + SLICES) do slices[passed % SLICES + 2] = 0 end
        slices[1] = math.max(slices[1], number)
    else
        for i = 2, SLICES + 1 do slices[i] = 0 end
    end
    local used = 0
    for i = 2, SLICES + 1 do used = used + slices[i] end
    return slices, used
end

-- Answer each request with `one(keys before it, its arguments)`, `count` arguments for each: one answer as it is, several
-- each with its length in front. `one` returns its answer and the number of keys that it used.
local function each(one, count)
    if #ARGV == count then return (one(0, unpack(ARGV))) end
    local answers, base = {}, 0
    for at = 1, #ARGV, count do
        local answer, used = one(base, unpack(ARGV, at, at + count - 1))
        base = base + used
        answers[#answers + 1] = pack('<I4', #answer)
        answers[#answers + 1] = answer
    end
    return table.concat(answers)
end
