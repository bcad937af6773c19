"""Tests of the sample package."""
