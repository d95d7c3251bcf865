"""checkpoint → samples."""
