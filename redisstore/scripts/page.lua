-- ARGV: subject or '' for all, limit, created and sid after which to begin, or ''
-- Returns sid, record and copy of the subject, newest first, and false where a copy is missing.
local key = ARGV[1] == '' and P .. 't' or P .. 'z:' .. ARGV[1]
local limit, at, last = tonumber(ARGV[2]), ARGV[3], ARGV[4]
local page, offset = {}, 0
while #page < 3 * limit do
	local some = call('ZREVRANGEBYSCORE', key, at == '' and '+inf' or at, '-inf', 'WITHSCORES', 'LIMIT', offset, limit + 1)
	if #some == 0 then break end
	for i = 1, #some, 2 do
		local sid = some[i]
		if #page < 3 * limit and (at == '' or tonumber(some[i + 1]) < tonumber(at) or sid < last) then
			local s = call('GET', P .. 's:' .. sid)
			if s then
				page[#page + 1] = sid
				page[#page + 1] = s
				page[#page + 1] = call('GET', P .. 'u:' .. subjectOf(s)) or ''
			end
		end
	end
	offset = offset + limit + 1
end
return page
