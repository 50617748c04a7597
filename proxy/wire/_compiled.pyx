"""Filled by the framing cursor."""
