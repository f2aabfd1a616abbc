# Sourced inside in_a_box: hosts h1, h2, ... with the addresses 10.77.0.1, 10.77.0.2, ... A host is
# known by the process that holds its namespaces; its id is in $SY_HOSTS/<host>.
hosts_folder=${hosts_folder:-$(cd "$(dirname "$0")" && pwd)}

# make_hosts <how many>: SY_HOSTS names a folder.
make_hosts() {
  export SY_HOSTS="$scratch/hosts"
  export OMPI_MCA_plm_rsh_agent="$hosts_folder/agent" OMPI_MCA_orte_keep_fqdn_hostnames=0
  mkdir "$SY_HOSTS"
  ip link set lo up
  ip link add bridge type bridge
  ip link set bridge up
  {
    echo 127.0.0.1 localhost
    i=0
    while [ $((i += 1)) -le "$1" ]; do echo "10.77.0.$i h$i"; done
  } >"$scratch/etc_hosts"
  i=0
  while [ $((i += 1)) -le "$1" ]; do make_host $i; done
}

make_host() {
  env -u SY_JOB unshare --net --uts --ipc --mount sh -c "
    hostname h$1 && mount -t tmpfs none /dev/shm && mount -t tmpfs none /var/tmp &&
      mount -t sysfs none /sys && mount --bind '$scratch/etc_hosts' /etc/hosts && : >'$SY_HOSTS/h$1.up' &&
      exec sleep infinity" &
  holder=$!
  tries=0
  until [ -e "$SY_HOSTS/h$1.up" ]; do
    [ $((tries += 1)) -lt 100 ] || { echo "host h$1 cannot be made" && exit 1; }
    sleep 0.05
  done
  echo $holder >"$SY_HOSTS/h$1"
  ip link add "cable$1" type veth peer name eth0 netns $holder
  ip link set "cable$1" master bridge up
  on "h$1" sh -c "ip link set lo up && ip addr add 10.77.0.$1/24 dev eth0 && ip link set eth0 up"
}

# on <host> <command...>
on() {
  on_host=$(cat "$SY_HOSTS/$1")
  shift
  nsenter --target "$on_host" --net --uts --ipc --mount -- env TMPDIR=/var/tmp "$@"
}

cut_cable() { ip link set "cable${1#h}" down; }
mend_cable() { ip link set "cable${1#h}" up; }

# Processes of a host, its holder left out.
host_processes() {
  lost=$(cat "$SY_HOSTS/$1")
  for other in /proc/[0-9]*; do
    [ "$(readlink "$other/ns/net")" = "$(readlink "/proc/$lost/ns/net")" ] &&
      [ "${other#/proc/}" != "$lost" ] && echo "${other#/proc/}"
  done
}

# As if its power failed: nothing of it is heard any more, not even that its processes end.
lose_host() {
  cut_cable "$1"
  # shellcheck disable=SC2046 # words
  kill -9 $(host_processes "$1") 2>/dev/null
}

# slow_down <host> <rate>: what it sends and what it is sent.
slow_down() {
  tc qdisc add dev "cable${1#h}" root tbf rate "$2" burst 64kb latency 100ms &&
    on "$1" tc qdisc add dev eth0 root tbf rate "$2" burst 64kb latency 100ms
}

# drop <host> <per mille>: of the packets that reach it, at random.
drop() {
  on "$1" nft add table inet lossy &&
    on "$1" nft add chain inet lossy in '{ type filter hook input priority 0; }' &&
    on "$1" nft add rule inet lossy in iif eth0 numgen random mod 1000 '<' "$2" counter drop
}
num_dropped() { on "$1" nft list chain inet lossy in | sed -n 's/.*packets \([0-9]*\) .*/\1/p'; }
