-- Notes that the data set is whole up to a time. ARGV: id that was verified,
-- or '' to move the time on only; the time in milliseconds
local id = dataset()
if ARGV[1] == '' then
	local log = call('HMGET', P .. 'log', 'id', 'at')
	if log[1] ~= id then return 0 end
	if tonumber(ARGV[2]) < tonumber(log[2]) + 8000 then return 1 end
elseif ARGV[1] ~= id then
	return 0
end
call('HSET', P .. 'log', 'id', id, 'at', ARGV[2])
return 1
