"""Published weights by name: their addresses and checksums, and a local cache of them."""
