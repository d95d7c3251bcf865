"""A campaign of faults: kills, damaged files, bad inputs, full disks; and what was lost."""
