-- Notes that a session of another shard is derived from one here, which has
-- to live. ARGV: parent, the whole sid of the other
local p = call('GET', P .. 's:' .. ARGV[1])
if not p then return 'no parent' end
if over(p, call('GET', P .. 'u:' .. subjectOf(p))) then return 'parent ended' end
call('SADD', P .. 'c:' .. ARGV[1], ARGV[2])
return 'noted'
