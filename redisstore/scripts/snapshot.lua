-- ARGV: sid
local s = call('GET', P .. 's:' .. ARGV[1])
if not s then return {} end
local t = call('TIME')
return {s, call('GET', P .. 'u:' .. subjectOf(s)), t[1], t[2]}
