"""What runs on the host before a launch: chips and their tiles, launching, ahead-of-time cases."""
