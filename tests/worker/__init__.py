"""Tests of `Hold`, `Worker` and the heart, against real servers and with real processes."""
