"""The process: configuration, checks, wiring, drain, metrics, HTTP."""
