-- Puts sessions as they are, unless they are there. ARGV: sid, record, parent
-- in this shard or '', whole sid …
local added = 0
for i = 1, #ARGV, 4 do
	local sid, s = ARGV[i], ARGV[i + 1]
	if call('EXISTS', P .. 's:' .. sid) == 0 then
		added = added + 1
		save(sid, s)
		call('ZADD', P .. 't', text(created(s)), sid)
		call('ZADD', P .. 'z:' .. subjectOf(s), text(created(s)), sid)
		call('PERSIST', P .. 'u:' .. subjectOf(s))
	end
	if ARGV[i + 2] ~= '' then call('SADD', P .. 'c:' .. ARGV[i + 2], ARGV[i + 3]) end
end
return added
