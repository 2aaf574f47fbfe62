"""What all tests share: property tests draw the same examples each time and have no deadline."""

from hypothesis import settings

settings.register_profile("fmtune", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("fmtune")
