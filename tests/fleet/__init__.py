"""Agents and pools: the fleet's scripts, its public names, and what becomes of leases when agents end."""
