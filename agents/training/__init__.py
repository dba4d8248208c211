"""What all training shares: the optimiser step, micro-batches, run folders, interruption, scored samples."""
