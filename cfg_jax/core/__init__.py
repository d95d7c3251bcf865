"""What every stage uses: errors, files, configs, devices, processes, checkpoints."""
