-- ARGV: sid, record (epoch0 is to be set), epoch0 as given, copy of the subject
-- or '', parent in this shard or ''
local sid, s, given, parent = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[5]
if call('EXISTS', P .. 's:' .. sid) == 1 then return {'taken'} end
if parent ~= '' then
	local p = call('GET', P .. 's:' .. parent)
	if not p then return {'no parent'} end
	if over(p, call('GET', P .. 'u:' .. subjectOf(p))) then return {'parent ended'} end
end
local subject = subjectOf(s)
local copy
if ARGV[4] ~= '' then
	copy = learn(subject, ARGV[4])
else
	copy = call('GET', P .. 'u:' .. subject)
	-- A sign-in that knows a later epoch comes between a change and its being told here.
	if not copy or given > number(copy, 3) then return {'subject'} end
end
local epoch = number(copy, 3)
if given == 0 or given > epoch then given = epoch end
if given < below(copy) then return {'signed out'} end
if string.byte(copy, 2) % 2 == 1 then return {'disabled'} end
s = with(s, 7, given)
save(sid, s)
call('ZADD', P .. 't', text(created(s)), sid)
call('ZADD', P .. 'z:' .. subject, text(created(s)), sid)
call('PERSIST', P .. 'u:' .. subject)
if parent ~= '' then call('SADD', P .. 'c:' .. parent, ARGV[6]) end
local t = call('TIME')
return {'added', s, copy, t[1], t[2]}
