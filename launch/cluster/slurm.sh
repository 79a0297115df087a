#!/bin/bash
# One task a host; JAX finds the others by Slurm's environment.
#SBATCH --job-name=@name@
#SBATCH --nodes=@hosts@
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=@devices@
#SBATCH --cpus-per-task=@cores@
#SBATCH --time=@hours@:00:00
#SBATCH --requeue
#SBATCH --signal=TERM@@180
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log
srun @command@
status=$?
# 75: told to stop, saved; 134: aborted, as JAX does where a host fell silent. Slurm counts the restarts; any
# other failure ends the job.
if { [ "$status" -eq 75 ] || [ "$status" -eq 134 ]; } && [ "${SLURM_RESTART_COUNT:-0}" -lt @restarts@ ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
