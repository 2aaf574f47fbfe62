"""Dashboard: a study in the real optuna-dashboard, opened safely, from the storage that is the study's only memory.

``gate`` lets in one browser, ``serve`` is the verb, ``dress`` gives the study its note, plots (``plots``) and report.
"""
