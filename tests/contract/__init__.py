"""What each Lua script promises, driven directly, with the time given by hand, on every engine."""
