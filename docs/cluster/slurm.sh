#!/bin/bash
# A study on Slurm: an array of workers.  The study file names a PostgreSQL that the nodes reach as `storage`;
# the password is in ~/.pgpass, which is everybody's own.   sbatch slurm.sh study.yaml
#SBATCH --job-name=fmtune
#SBATCH --array=1-8
#SBATCH --cpus-per-task=4
#SBATCH --mem=8G
#SBATCH --time=04:00:00
#SBATCH --requeue
#SBATCH --signal=TERM@60
set -euo pipefail
# exec: Slurm's signal reaches the worker itself, which gives its trials back.
exec fmtune worker "$1"
