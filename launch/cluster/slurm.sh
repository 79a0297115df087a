#!/bin/bash
# One task per host. JAX finds the other hosts through environment variables of Slurm.
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
# 75: stopped by SIGTERM, checkpoint saved. 134: aborted by JAX because another host stopped responding.
# Any other failure ends the job. Slurm counts the restarts.
if { [ "$status" -eq 75 ] || [ "$status" -eq 134 ]; } && [ "${SLURM_RESTART_COUNT:-0}" -lt @restarts@ ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
