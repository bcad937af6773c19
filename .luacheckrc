-- Read by `make lint` for the scripts as Redis gets them: a verb, and before it the parts it uses.
std = "lua51"
read_globals = {"redis", "cjson", "KEYS", "ARGV"}
-- A part brings all it has, and a verb need not use all of it.
unused = false
max_line_length = false
