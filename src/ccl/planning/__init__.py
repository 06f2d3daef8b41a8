"""What training and generation cost, counted before anything runs."""
