"""One run: its problem, its steps, and the loop that trains, saves and resumes."""
