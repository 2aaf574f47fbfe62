# Every target works on a fresh clone: it makes its own .venv from the locked, hashed requirements.
