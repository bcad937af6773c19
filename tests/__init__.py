"""The tests: real servers in `servers.py`, broken networks in `proxy.py`, fixtures in `conftest.py`."""
