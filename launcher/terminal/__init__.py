"""What is printed on and heard from a terminal."""
