-- ARGV: sid
local s = call('GET', P .. 's:' .. ARGV[1])
if not s then return 0 end
call('DEL', P .. 's:' .. ARGV[1], P .. 'c:' .. ARGV[1])
call('ZREM', P .. 't', ARGV[1])
call('ZREM', P .. 'd', ARGV[1])
call('ZREM', P .. 'z:' .. subjectOf(s), ARGV[1])
return 1
