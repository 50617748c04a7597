"""What one transaction, one result, one login and one idle client cost the proxy, beside PgBouncer in the same run."""
