"""Rules that hold for every sequence of calls: a state machine against a model, and orders of many shapes."""
