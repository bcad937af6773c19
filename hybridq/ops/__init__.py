"""Every operation of a queue as a function that checks its arguments and returns a `Call`; nothing here does I/O.

`jobs` is what producers and operators do, `leases` what holders do, `logs` what jobs say, `queues` what is done to a
queue as a whole, `inspect` what looks in.
"""
