"""samples → metrics: lines of evals.jsonl."""
