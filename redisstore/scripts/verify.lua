-- Is this the data set that was known to be whole?
local id = dataset()
local log = call('HMGET', P .. 'log', 'id', 'at')
if log[1] == id then return {'same', id, log[2]} end
if not log[1] and call('EXISTS', P .. 't') == 0 then return {'empty', id, '0'} end
return {'other', id, log[2] or ''}
