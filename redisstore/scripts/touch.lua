-- ARGV: sid, at, sid, at …
for i = 1, #ARGV, 2 do
	local s = call('GET', P .. 's:' .. ARGV[i])
	local at = tonumber(ARGV[i + 1])
	if s and active(s) < at and not over(s, call('GET', P .. 'u:' .. subjectOf(s))) then
		save(ARGV[i], revised(with(s, 15, at)))
	end
end
return 1
