"""Sagemaker: the one room that speaks Amazon SageMaker's dialect; nothing else knows it."""
