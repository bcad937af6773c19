"""Every operation of a queue as a function that checks its arguments and returns a `Call`; nothing here does I/O.

`jobs` is what producers and operators do, `leases` what holders do, `upkeep` what time does, `inspect` what looks in.
"""
