"""What a config costs, before any money is spent."""
