#!/bin/bash
# A TPU VM slice: the same command on every worker, which find each other by the slice's metadata.
# 75: told to stop, saved; 134: aborted, as JAX does where a host fell silent; any other failure ends the job.
for ((start = 0; start <= @restarts@; start++)); do
    gcloud compute tpus tpu-vm ssh "@slice@" --zone="@zone@" --worker=all --command=@quoted_command@
    status=$?
    [ "$status" -eq 75 ] || [ "$status" -eq 134 ] || exit "$status"
    sleep 30
done
exit 75
