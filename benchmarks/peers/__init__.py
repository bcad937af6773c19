"""The same work on other queues, each in an environment of its own, in turn with ours in one run.

`table` says which, at which versions, in which of their documented settings, and what each promises; `homes` installs
them; `programs/` does the work in them, one file a peer, by the same protocol as our own programs and without
importing anything of ours.
"""
