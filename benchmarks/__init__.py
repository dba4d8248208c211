"""Commands, checks, measurements and the demonstration."""
