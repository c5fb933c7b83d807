-- ARGV: below, at, reason, actor, the sid that was kept or '', sid …
for i = 6, #ARGV do
	if ARGV[i] ~= ARGV[5] then settle(ARGV[i], tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], ARGV[4]) end
end
return 1
