"""The shell's door: serve, demo, doctor, and the deeds of every room."""
