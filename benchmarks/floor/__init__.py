"""The floor: the least program that leases and completes each job in Lua, and does nothing else: a limit."""
