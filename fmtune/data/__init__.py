"""Data: makes rows.  Formats read and written, channels put together, dataset cards loaded."""
