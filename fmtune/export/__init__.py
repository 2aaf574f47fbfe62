"""Export: models and studies in other people's formats."""
