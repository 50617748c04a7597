"""The configuration file: read, expanded, validated, with every mistake named by file, line and key."""
