"""Bench: slower, faster, no change, or cannot tell.

``case`` reads what is measured, ``run`` measures it in fresh processes, ``gate`` judges, ``faces`` shows.
"""
