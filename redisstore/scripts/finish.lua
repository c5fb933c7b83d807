-- Ends sessions by themselves. ARGV: at, reason, actor, sid …
-- Returns the sids of those derived from them.
local derived = {}
for i = 4, #ARGV do
	local s = call('GET', P .. 's:' .. ARGV[i])
	if s then
		if not ended(s) or endedBelow(s) ~= 0 then
			save(ARGV[i], finished(s, tonumber(ARGV[1]), 0, ARGV[2], ARGV[3]))
		end
		for _, sid in ipairs(call('SMEMBERS', P .. 'c:' .. ARGV[i])) do derived[#derived + 1] = sid end
	end
end
return derived
