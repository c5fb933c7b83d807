-- A subject changed. ARGV: subject, copy, and where it was signed out: below,
-- at, reason, actor, the sid that was kept or ''
-- Returns how many sessions are left to be settled: none or all.
learn(ARGV[1], ARGV[2])
if #ARGV < 3 then return 0 end
local key = P .. 'z:' .. ARGV[1]
local count = call('ZCARD', key)
if count > 64 then return count end
for _, sid in ipairs(call('ZRANGE', key, 0, -1)) do
	if sid ~= ARGV[7] then settle(sid, tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5], ARGV[6]) end
end
return 0
