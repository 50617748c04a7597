"""The command `pgheadroom`."""
