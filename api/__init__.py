"""The HTTP door to a queue. The command line loads this package when it is asked to serve, not before."""

import atexit
import gc

# msgspec 0.22 may free what it knows of a Struct class twice when classes are collected as garbage: at the end of the
# process, which then dies of a segmentation fault. What lives until then is left to the operating system.
atexit.register(gc.freeze)
