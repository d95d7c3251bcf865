"""What each paper claims: its tables, its findings, its sweeps."""
