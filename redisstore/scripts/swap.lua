-- Compare and swap. ARGV: sid, revision as read, record (with the next one),
-- signed out below as read or '', a name by which it is noted that the
-- subject's epoch has to grow, or ''
local sid = ARGV[1]
local s = call('GET', P .. 's:' .. sid)
if not s then return 'none' end
if text(struct.unpack('>I4', s, 3)) ~= ARGV[2] then return 'changed' end
if ARGV[4] ~= '' and text(below(call('GET', P .. 'u:' .. subjectOf(s)))) ~= ARGV[4] then return 'changed' end
save(sid, ARGV[3])
if ARGV[5] ~= '' then call('ZADD', P .. 'p', call('TIME')[1], ARGV[5]) end
return 'swapped'
