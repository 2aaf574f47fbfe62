"""Estimators: scikit-learn's face of a factorization machine (extra ``sklearn``)."""
