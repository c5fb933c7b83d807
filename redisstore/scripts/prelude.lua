-- What all scripts begin with. P is what the shard's keys begin with, which
-- all but one script are given as a key that never exists (see scripts.go):
--   s:<sid>  a session          u:<subject>  copy of a subject's row
--   c:<sid>  those derived      z:<subject>  its sessions, by start
--   t        all sessions, by start
--   d        all sessions, by when they are or will be dead
--   p        subjects whose epoch has to grow after a change, by when
--   log      id: of the data set that is known to be whole; at: what the journal had told by then
-- sid stands without the two characters of the shard. Records: see record.go.
local P = KEYS[1]
local call = redis.call

local function number(s, at) return (struct.unpack('>i8', s, at)) end
local function with(s, at, n) return string.sub(s, 1, at - 1) .. struct.pack('>i8', n) .. string.sub(s, at + 8) end
local function text(n) return string.format('%.0f', n) end

local function ended(s) return string.byte(s, 2) % 2 == 1 end
local function epoch0(s) return number(s, 7) end
local function active(s) return number(s, 15) end
local function created(s) return number(s, 39) end
local function endedBelow(s) return number(s, 55) end
local function subjectOf(s)
	local size = struct.unpack('>I2', s, 67)
	return string.sub(s, 69, 68 + size)
end
local function dead(s)
	if ended(s) then return number(s, 47) end
	return math.min(active(s) + number(s, 23), number(s, 31))
end
local function revised(s)
	local rev = struct.unpack('>I4', s, 3)
	return string.sub(s, 1, 2) .. struct.pack('>I4', (rev + 1) % 4294967296) .. string.sub(s, 7)
end

-- finished is a record that ends at the time, by the sign-out below or by itself (0).
local function finished(s, at, below, reason, actor)
	local size = struct.unpack('>I4', s, 63)
	s = string.sub(s, 1, 1) .. string.char(1) .. string.sub(s, 3, 66 + size)
		.. string.char(#reason) .. reason .. string.char(#actor) .. actor
	return revised(with(with(s, 47, at), 55, below))
end

local function below(copy) return copy and number(copy, 11) or 0 end
local function over(s, copy) return ended(s) or epoch0(s) < below(copy) end

local function save(sid, s)
	call('SET', P .. 's:' .. sid, s)
	call('ZADD', P .. 'd', text(dead(s)), sid)
end

-- learn keeps a copy of a subject unless there is a newer one, and returns
-- what is kept. Without sessions it stays a while: whoever read the row
-- before must not bring the old one back.
local function learn(subject, copy)
	local key = P .. 'u:' .. subject
	local have = call('GET', key)
	if have and number(have, 3) >= number(copy, 3) then return have end
	if call('EXISTS', P .. 'z:' .. subject) == 1 then
		call('SET', key, copy)
	else
		call('SET', key, copy, 'PX', 3600000)
	end
	return copy
end

-- settle writes the end by a sign-out into a session. Of several sign-outs
-- the first one above epoch0 ended it, in whatever order they are told.
local function settle(sid, low, at, reason, actor)
	local s = call('GET', P .. 's:' .. sid)
	if not s or epoch0(s) >= low then return end
	if ended(s) and (endedBelow(s) == 0 or endedBelow(s) <= low) then return end
	save(sid, finished(s, at, low, reason, actor))
end

local function dataset()
	return string.match(call('INFO', 'replication'), 'master_replid:(%x+)')
end
