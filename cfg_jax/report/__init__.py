"""metrics and samples → report.html and report.csv."""
