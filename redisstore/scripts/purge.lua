-- ARGV: before, limit. Returns sid and record of each that is gone.
local gone = {}
for _, sid in ipairs(call('ZRANGEBYSCORE', P .. 'd', '-inf', '(' .. ARGV[1], 'LIMIT', 0, ARGV[2])) do
	local s = call('GET', P .. 's:' .. sid)
	call('DEL', P .. 's:' .. sid, P .. 'c:' .. sid)
	call('ZREM', P .. 't', sid)
	call('ZREM', P .. 'd', sid)
	if s then
		local subject = subjectOf(s)
		call('ZREM', P .. 'z:' .. subject, sid)
		if call('EXISTS', P .. 'z:' .. subject) == 0 then call('PEXPIRE', P .. 'u:' .. subject, 3600000) end
		gone[#gone + 1] = sid
		gone[#gone + 1] = s
	end
end
return gone
