"""From the files that data sets are published in to the ones that training reads."""
