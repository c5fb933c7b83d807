-- ARGV: subject, copy
learn(ARGV[1], ARGV[2])
return 1
