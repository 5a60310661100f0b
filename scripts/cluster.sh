#!/usr/bin/env bash
# A whole Kubernetes on this machine for the tests: etcd, API server, controllers, scheduler, kubelet, kube-proxy,
# containerd, CoreDNS. All of it lives in namespaces of its own (network, mounts, processes): nothing of it can meet what
# else runs here, several clusters live side by side, and when the first process of the namespaces ends, the kernel ends
# every other one and takes the mounts, interfaces and iptables rules with it. Outside there is one link with its route,
# one folder in each cgroup hierarchy, and the cluster's folder. Must never change a setting of the machine itself.
#
#   scripts/cluster.sh up                  start; prints `export KUBECONFIG=…` (usually 10 s; a healthy one is left as it is)
#   scripts/cluster.sh down                end and remove everything
#   scripts/cluster.sh status              what runs; fails if anything is missing
#   scripts/cluster.sh kill PART           SIGKILL to one part; returns when it is gone
#   scripts/cluster.sh start PART          start it again, on the same data
#   scripts/cluster.sh load-image FILE…    import docker-archives into the node, for Pods with imagePullPolicy Never
#   scripts/cluster.sh kubectl ARGS…       kubectl of the cluster's version, as cluster-admin
#   scripts/cluster.sh audit               print the audit log, one JSON object a line
#
# The folder is $KUBELESS_CLUSTER, or `cluster` in the project's cache folder. Addresses: the machine is NET.0.1, the node
# NET.0.2, Pods NET.64.0/18, Services NET.128.0/17, NET being in the file `net`; the machine reaches Pods and Services directly.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
templates=$root/tests/parts/kubernetes/cluster
dir=${KUBELESS_CLUSTER:-${XDG_CACHE_HOME:-$HOME/.cache}/kubeless/cluster}
all_parts=(etcd kube-apiserver kube-controller-manager kube-scheduler containerd kubelet kube-proxy coredns slirp4netns)
# What this run started and expects to stay.
started=()
# Longest wait for one step, in tenths of a second. Every step usually takes less than a tenth of it.
patience=1200

say() { echo "cluster: $*" >&2; }
fail() {
    say "$*"
    exit 1
}

wait_for() { # $1: what, in words; $2…: a test
    local what=$1 i part
    shift
    for ((i = 0; i < patience; i++)); do
        "$@" >/dev/null 2>&1 && return
        sleep 0.1
        for part in "${started[@]}"; do
            part_pid "$part" >/dev/null || [ $((i % 10)) != 9 ] || fail "$part ended: $(tail -n 20 "$dir/$part.log")"
        done
    done
    fail "waited $((patience / 10)) s in vain for: $what; the logs are in $dir"
}

require() {
    local program
    [ "$(id -u)" = 0 ] || fail "only root can make a cluster: run it with sudo"
    for program in containerd ctr runc iptables ip unshare nsenter slirp4netns openssl curl /usr/lib/cni/ptp; do
        command -v "$program" >/dev/null || fail "$program is missing; to install it: make setup"
    done
    case $dir/ in
    /run/* | /var/lib/* | /var/log/*) fail "the cluster has its own /run, /var/lib and /var/log: choose a folder elsewhere than $dir" ;;
    esac
    kube=$("$root/scripts/parts.sh" kubernetes)
}

# The first process of the namespaces, if it runs. Its command line names the folder, so that a pid used again is no mistake.
init_pid() {
    local pid
    pid=$(cat "$dir/init.pid" 2>/dev/null) && tr '\0' '\n' <"/proc/$pid/cmdline" 2>/dev/null | grep -qxF "$dir" && echo "$pid"
}

child_of() { # $1: pid
    local child
    child=$(cut -d' ' -f1 "/proc/$1/task/$1/children" 2>/dev/null) && [ -n "$child" ] && echo "$child"
}

inside() { # runs a command in the cluster's namespaces
    nsenter --target "$(cat "$dir/init.pid")" --mount --net --pid -- "$@"
}

# --- the namespaces, and the link to them

make_namespaces() {
    local outer
    mkdir -p "$dir/cgroups"
    # shellcheck disable=SC2016  # expanded by the inner shell
    setsid unshare --net --mount --pid --fork --kill-child --mount-proc --propagation private bash -euc '
        # Interfaces show in /sys as the namespace has them; the cgroups stay the machine'\''s.
        mount --rbind /sys/fs/cgroup "$1/cgroups"
        mount -t sysfs sysfs /sys
        mount --move "$1/cgroups" /sys/fs/cgroup
        for own in /run /var/lib /var/log; do mount -t tmpfs -o mode=755 tmpfs "$own"; done
        sysctl -qw net.ipv4.ip_forward=1
        exec "$2/pause" "$1"' bash "$dir" "$kube" </dev/null >"$dir/init.log" 2>&1 &
    outer=$!
    wait_for "a process in new namespaces ($(cat "$dir/init.log" 2>/dev/null))" child_of "$outer"
    child_of "$outer" >"$dir/init.pid"
    wait_for "the mounts of the namespaces" init_pid
}

make_link() {
    local block init name
    init=$(init_pid)
    for block in $(shuf -i 128-250); do
        name=kubeless$block
        # Whoever made the interface has the block; addresses that the machine knows are nobody's to take.
        [ -z "$(ip -4 route show table all | grep -F " 10.$block." || true)$(ip -4 route show table all | grep "^10\.$block\." || true)" ] || continue
        ip link add "$name" type veth peer name eth0 netns "$init" 2>/dev/null && break
    done
    echo "$name" >"$dir/name"
    echo "10.$block" >"$dir/net"
    ip addr add "10.$block.0.1/30" dev "$name"
    ip link set "$name" up
    ip route add "10.$block.0.0/16" via "10.$block.0.2"
    inside bash -euc "ip link set lo up; ip addr add 10.$block.0.2/30 dev eth0; ip link set eth0 up"
    # The address of a Pod that is gone is nobody's: without this, what is sent there would leave by the way to the
    # package registries and be tried on the machine's own network.
    inside ip route add unreachable "10.$block.64.0/18"
}

cgroup_roots() {
    if [ -e /sys/fs/cgroup/cgroup.procs ]; then
        echo /sys/fs/cgroup
    else
        find /sys/fs/cgroup -mindepth 1 -maxdepth 1 -type d
    fi
}

# --- files

write_files() {
    local name=$1 net=$2 file token user
    for file in "$templates"/*; do
        sed "s|@DIR@|$dir|g; s|@NET@|$net|g; s|@NAME@|$name|g" "$file" >"$dir/$(basename "$file")"
    done
    mkdir -p "$dir/cni"
    mv "$dir/cni.conflist" "$dir/cni/10-pods.conflist"
    # slirp4netns answers there with what the machine's own resolver says.
    echo "nameserver 10.0.2.3" >"$dir/resolv.conf"
    openssl ecparam -name prime256v1 -genkey -noout -out "$dir/accounts.key" 2>/dev/null
}

write_kubeconfigs() {
    local token user name ca
    ca=$(base64 -w0 "$dir/certs/apiserver.crt")
    while IFS=, read -r token user _; do
        cat >"$dir/$token.kubeconfig" <<EOF
{"apiVersion": "v1", "kind": "Config", "current-context": "test",
 "clusters": [{"name": "test", "cluster": {"server": "https://$net.0.2:6443", "certificate-authority-data": "$ca"}}],
 "users": [{"name": "test", "user": {"token": "$token"}}],
 "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}]}
EOF
    done <"$dir/tokens.csv"
}

# --- the parts

start() { # $1: part; returns when it is started, not when it is ready
    local net command
    net=$(cat "$dir/net")
    case $1 in
    etcd) command=("$kube/kube" etcd --name=etcd --data-dir="$dir/etcd" --unsafe-no-fsync --log-level=warn) ;;
    kube-apiserver)
        command=("$kube/kube" kube-apiserver --etcd-servers=http://127.0.0.1:2379 --bind-address=0.0.0.0
            --advertise-address="$net.0.2" --secure-port=6443 --cert-dir="$dir/certs" --token-auth-file="$dir/tokens.csv"
            --authorization-mode=Node,RBAC --enable-admission-plugins=NodeRestriction --allow-privileged=true
            --service-cluster-ip-range="$net.128.0/17" --kubelet-preferred-address-types=InternalIP
            --service-account-issuer=https://kubernetes.default.svc.cluster.local
            --service-account-key-file="$dir/accounts.key" --service-account-signing-key-file="$dir/accounts.key"
            --audit-policy-file="$dir/audit.yaml" --audit-log-path="$dir/audit.log")
        ;;
    kube-controller-manager)
        command=("$kube/kube" "$1" --kubeconfig="$dir/$1.kubeconfig" --leader-elect=false --use-service-account-credentials
            --service-account-private-key-file="$dir/accounts.key" --root-ca-file="$dir/certs/apiserver.crt")
        ;;
    kube-scheduler) command=("$kube/kube" "$1" --kubeconfig="$dir/$1.kubeconfig" --leader-elect=false) ;;
    kube-proxy)
        # The table of connections belongs to the machine: its limits are left alone.
        command=("$kube/kube" "$1" --kubeconfig="$dir/$1.kubeconfig" --hostname-override=node --proxy-mode=iptables
            --cluster-cidr="$net.64.0/18" --conntrack-max-per-core=0 --conntrack-tcp-timeout-established=0
            --conntrack-tcp-timeout-close-wait=0)
        ;;
    kubelet)
        command=("$kube/kube" kubelet --kubeconfig="$dir/kubelet.kubeconfig" --config="$dir/kubelet.yaml"
            --root-dir="$dir/kubelet" --cert-dir="$dir/kubelet/pki" --hostname-override=node --node-ip="$net.0.2")
        ;;
    containerd) command=(containerd --config "$dir/containerd.toml") ;;
    coredns) command=("$kube/kube" coredns -conf "$dir/Corefile") ;;
    # Pods reach other machines through this process, with the machine's own sockets: no forwarding, no rule outside.
    # It uses the machine's network, but dies with the process namespace.
    slirp4netns) command=(slirp4netns --configure --disable-host-loopback --mtu=1500 --netns-type=path /proc/1/ns/net tap0) ;;
    *) fail "no part is called $1: ${all_parts[*]}" ;;
    esac
    local enter=(nsenter --target "$(init_pid)" --mount --pid)
    [ "$1" = slirp4netns ] || enter+=(--net)
    setsid "${enter[@]}" -- "${command[@]}" </dev/null >>"$dir/$1.log" 2>&1 &
    echo $! >"$dir/$1.pid"
    started+=("$1")
}

part_pid() { # $1: part; nsenter is its parent and ends with it
    local parent
    parent=$(cat "$dir/$1.pid" 2>/dev/null) && grep -qz nsenter "/proc/$parent/cmdline" 2>/dev/null && child_of "$parent"
}

gone() { ! part_pid "$1"; }

kill_part() {
    local pid
    pid=$(part_pid "$1") || return 0
    kill -KILL "$pid"
    wait_for "the end of $1" gone "$1"
}

running() {
    local part missing=0
    [ -n "$(init_pid)" ] || { say "no cluster in $dir"; return 1; }
    for part in "${all_parts[@]}"; do
        part_pid "$part" >/dev/null || { say "$part does not run"; missing=1; }
    done
    return $missing
}

kubectl() { KUBECONFIG=$dir/admin.kubeconfig KUBECACHEDIR=$dir/kubectl-cache "$kube/kube" kubectl "$@"; }
node_ready() { kubectl get node node -o 'jsonpath={.status.conditions[?(@.type=="Ready")].status}' | grep -q True; }
dns_answers() { inside curl -fs http://127.0.0.1:8181/ready && timeout 1 bash -c ": </dev/tcp/$(cat "$dir/net").128.10/53"; }
containerd_answers() { inside ctr version; }
has_certificate() { tail -n 1 "$dir/certs/apiserver.crt" | grep -q 'END CERTIFICATE'; }
has_namespace_account() { kubectl get serviceaccount default -n default; }

load_image() {
    local file
    for file; do
        [ -f "$file" ] || fail "no such file: $file"
        say "importing $(basename "$file") into the node (usually 10 s) …"
        # The shell opens it: the cluster has its own /run and /var/lib.
        inside ctr -n k8s.io images import - <"$file" >&2
    done
}

up() {
    local begun=$EPOCHREALTIME cgroup net name part
    if [ -e "$dir/ready" ] && running 2>/dev/null && node_ready; then
        say "already up in $dir"
        echo "export KUBECONFIG=$dir/admin.kubeconfig"
        return
    fi
    [ ! -e "$dir" ] || { say "what is left in $dir of an earlier cluster is removed first" && down; }
    say "starting Kubernetes in $dir (usually 10 s) …"
    make_namespaces
    make_link
    name=$(cat "$dir/name") net=$(cat "$dir/net")
    for cgroup in $(cgroup_roots); do mkdir "$cgroup/$name"; done
    write_files "$name" "$net"
    for part in etcd containerd slirp4netns kube-apiserver; do start "$part"; done
    wait_for "the API server's certificate" has_certificate
    write_kubeconfigs
    wait_for containerd containerd_answers
    load_image "$kube/pause.tar"
    wait_for "the API server" kubectl get --raw /readyz
    for part in kube-controller-manager kube-scheduler kubelet kube-proxy coredns; do start "$part"; done
    kubectl apply --server-side -f "$dir/dns.yaml" >/dev/null
    say "the API server is ready; waiting for the node and DNS …"
    wait_for "the node to be Ready" node_ready
    wait_for "DNS on its Service address" dns_answers
    wait_for "the default service account" has_namespace_account
    touch "$dir/ready"
    say "ready after $(awk "BEGIN { printf \"%.1f\", $EPOCHREALTIME - $begun }") s; Services are $net.128.0/17, this machine is $net.0.1; kubectl: $0 kubectl"
    echo "export KUBECONFIG=$dir/admin.kubeconfig"
}

no_cgroup() { # $1: name
    local cgroup
    for cgroup in $(cgroup_roots); do
        [ ! -d "$cgroup/$1" ] || find "$cgroup/$1" -depth -type d -exec rmdir {} + || return 1
    done
}

# By name of the folder, so that a start that was broken off before it noted anything is found too.
namespace_pids() {
    local file program
    for file in $(grep -lzxF -- "$dir" /proc/[0-9]*/cmdline 2>/dev/null); do
        program=$(tr '\0' '\n' <"$file" 2>/dev/null | head -n 1)
        case ${program##*/} in
        unshare | pause) basename "$(dirname "$file")" ;;
        esac
    done
}

no_namespaces() { [ -z "$(namespace_pids)" ]; }

down() {
    local pid name
    [ ! -e "$dir/ready" ] || say "ending the cluster in $dir (usually 20 s) …"
    for pid in $(namespace_pids); do kill -KILL "$pid" 2>/dev/null || true; done
    wait_for "the end of the cluster's first process" no_namespaces
    if name=$(cat "$dir/name" 2>/dev/null); then
        # The kernel removes it with the namespace, but takes its time.
        ip link del "$name" 2>/dev/null || true
        wait_for "the end of every process in the cgroups" no_cgroup "$name"
    fi
    rm -rf -- "$dir"
}

case ${1:-} in
up)
    require
    up
    ;;
down) down ;;
status)
    require
    running && node_ready && say "healthy, in $dir"
    ;;
kill | start)
    require
    [ -n "$(init_pid)" ] || fail "no cluster in $dir"
    if [ "$1" = kill ]; then kill_part "${2:-}"; else part_pid "${2:-}" >/dev/null || start "${2:-}"; fi
    ;;
load-image)
    require
    shift
    load_image "$@"
    ;;
kubectl)
    kube=$("$root/scripts/parts.sh" kubernetes)
    shift
    kubectl "$@"
    ;;
audit) cat "$dir/audit.log" ;;
*)
    sed -n '2,19s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
