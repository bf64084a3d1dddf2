"""What a built engine must do right before it is installed, on small models made for it."""
