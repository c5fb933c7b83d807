-- KEYS: the session. ARGV: sid, and anything to have those derived from it told too
P = string.sub(KEYS[1], 1, -3 - #ARGV[1])
local s = call('GET', P .. 's:' .. ARGV[1])
if not s then return {} end
local t = call('TIME')
local derived
if ARGV[2] then
	derived = redis.pcall('SMEMBERS', P .. 'c:' .. ARGV[1])
	-- While the slot is moved nobody knows here whether there are any. Who writes
	-- the end into the session, after the move, finds them.
	if derived.err then derived = {} end
end
return {s, call('GET', P .. 'u:' .. subjectOf(s)), t[1], t[2], derived}
