"""The HTTP door to a queue. The command line loads this package when it is asked to serve, not before."""
