#!/bin/bash
# Starts several ranks on this machine without mpirun: tests/gpu/local_ranks.sh <ranks> <command...>. They find
# their rank in SY_TEST_RANK, their number in SY_TEST_WORLD, and come together at SY_TEST_ADDRESS. All may share one
# GPU: NCCL refuses two ranks on one GPU of one host, so each is on a host of its own by name; they meet on
# the loopback interface. The first that fails ends all, and its exit code is the script's.
set -u
world=$1
shift
port=$((10000 + RANDOM % 20000))
while (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do
  port=$((10000 + RANDOM % 20000)) # somebody answers there
done
export SY_TEST_WORLD=$world SY_TEST_ADDRESS=127.0.0.1:$port NCCL_SOCKET_IFNAME=lo
for ((rank = 0; rank < world; ++rank)); do
  SY_TEST_RANK=$rank NCCL_HOSTID=rank$rank "$@" &
done
trap 'kill $(jobs -p) 2>/dev/null' EXIT
for ((rank = 0; rank < world; ++rank)); do
  wait -n || exit
done
