"""Sockets: applies the admission core's decisions to real connections."""
