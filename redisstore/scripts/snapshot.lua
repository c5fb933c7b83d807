-- ARGV: sid, and anything to have those derived from it told too
local s = call('GET', P .. 's:' .. ARGV[1])
if not s then return {} end
local t = call('TIME')
return {s, call('GET', P .. 'u:' .. subjectOf(s)), t[1], t[2], ARGV[2] and call('SMEMBERS', P .. 'c:' .. ARGV[1])}
