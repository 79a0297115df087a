#!/bin/bash
# A TPU VM slice: runs the same command on every worker. Workers find each other through the slice's metadata.
# 75: stopped by SIGTERM, checkpoint saved. 134: aborted by JAX because another host stopped responding.
# Any other failure ends the job.
for ((start = 0; start <= @restarts@; start++)); do
    gcloud compute tpus tpu-vm ssh "@slice@" --zone="@zone@" --worker=all --command=@quoted_command@
    status=$?
    [ "$status" -eq 75 ] || [ "$status" -eq 134 ] || exit "$status"
    sleep 30
done
exit 75
