"""The agent from end to end: real processes, real sockets, a real Redis that writes to disk.

```
house     Redis, the API as a process, a client of it      tap    the network: breaks, and writes down what it hears
agents    `hybridq agent` processes, kept up as by systemd  sink   where jobs leave their effects, fenced
sources   the git repository that jobs build and test      doings  what jobs run, and what is seen of them
```
"""
