"""Root programs, run as processes of their own, and what they grow."""
