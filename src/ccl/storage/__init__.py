"""What lies on disk of training and of models: run folders, checkpoints, model folders, and whom they may name."""
