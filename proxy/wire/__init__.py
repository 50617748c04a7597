"""Bytes and facts: framing, startup packets, messages, logins, statements. No asyncio, no clock, no logging."""
