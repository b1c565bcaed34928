"""Pure: bytes in, messages out. Nothing here does I/O, awaits or asks for the time."""
