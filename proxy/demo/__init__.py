"""A PostgreSQL for tries and the load that shows what the proxy is for."""
