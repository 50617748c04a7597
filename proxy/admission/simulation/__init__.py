"""Hours of declared traffic through the admission core in seconds, beside the pools people have today. Pure."""
