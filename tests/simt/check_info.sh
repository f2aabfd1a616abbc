#!/bin/sh
# What `switchyard info` says of GPUs: check_info.sh <the program, over the emulated GPU>
set -eu
program=$1
failed=0

# expect <devices, as SY_SIMT_DEVICES> <text>...
expect() {
  devices=$1
  shift
  said=$(SY_SIMT_DEVICES="$devices" "$program" info)
  for text in "$@"; do
    case $said in
    *"$text"*) ;;
    *)
      echo "with the GPUs '$devices', info should say '$text':"
      echo "$said"
      failed=1
      ;;
    esac
  done
}

expect sm120 'Kernels    cpu, cuda' 'nccl (GPUs)' '  0  ' 'compute capability 12.0' 'SMs' \
  'sm_120f: FP4 by block-scaled matrix instructions'
expect sm90,sm121 '  1  ' 'compute capability 9.0' 'compute capability 12.1' \
  'sm_90: FP4 dequantised to BF16'
expect '' 'None: '
expect 'no driver' 'None: ' 'driver'
SY_SIMT_DEVICES=sm90,sm90 "$program" info --json | grep -q '"compute_major": 9' || {
  echo "info --json does not tell of the GPUs"
  failed=1
}
exit $failed
