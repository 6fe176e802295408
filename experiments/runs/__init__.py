"""What a run leaves on the disk, and the processes and signals it lives with."""
