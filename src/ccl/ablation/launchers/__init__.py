"""Who does the jobs of a matrix: processes of this machine, a job array of Slurm, a Ray cluster."""
