"""What parts do together, on real servers, clusters and sentinels."""
