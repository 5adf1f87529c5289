"""What a network is worth: accuracy at every resolution."""
