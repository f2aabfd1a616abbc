#!/bin/sh
# One rank of several on one GPU, under mpirun: one_of_several.sh <command...>. NCCL refuses two ranks on
# one GPU of one host, so each rank is on a host of its own, by name; they meet on the loopback interface.
rank=${OMPI_COMM_WORLD_RANK:-${PMI_RANK:-0}}
export NCCL_HOSTID="rank$rank" NCCL_SOCKET_IFNAME=lo
exec "$@"
