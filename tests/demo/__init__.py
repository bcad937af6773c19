"""The demo: the parts it is made of, and the whole on real servers."""
