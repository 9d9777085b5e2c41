#!/usr/bin/env bash
# Plays the newcomer: clones HEAD into a bare Debian or Ubuntu that has git, make and certificates, and runs commands there.
#   tools/fresh.sh SUITE [COMMAND...]     such as: tools/fresh.sh bookworm          (the README's: make demo, make test)
# Needs root and name spaces. Exits with 0 when all commands passed, 1 when one failed, 2 when the system could not be made,
# and 77 where this machine allows no name spaces.
#   FRESH_FOLDER     where bare systems, a week old at most, and the commands' logs are kept (/var/tmp/runahead-fresh)
#   FRESH_MIRROR     the archive of the suite (the one that this machine's apt uses)
#   CCACHE_DIR       when set, objects are looked up there; the system then has ccache, which brings nothing that we link
#   RUNAHEAD_ASSETS  when set, the folder with files for the tests, read-only; the system then has xz, which unpacks them
set -euo pipefail

fail() { echo "fresh.sh: $*" >&2; exit 2; }

# The second half of this file's work, in name spaces of its own, whose mounts and processes end with it.
enter() {  # ROOT COMMAND
  local root=$1 name
  mount -t proc proc "$root/proc"
  mount -t sysfs -o ro sysfs "$root/sys" 2>/dev/null || true  # where UCX looks for networks
  mount -t tmpfs -o mode=755 tmpfs "$root/dev"
  for name in null zero full random urandom; do
    : >"$root/dev/$name"
    mount --bind "/dev/$name" "$root/dev/$name"
  done
  mkdir "$root/dev/shm" "$root/dev/pts"
  mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
  mount -t devpts -o newinstance,ptmxmode=666 devpts "$root/dev/pts" && ln -s pts/ptmx "$root/dev/ptmx"
  ln -s /proc/self/fd "$root/dev/fd"
  for name in stdin:0 stdout:1 stderr:2; do ln -s "/proc/self/fd/${name#*:}" "$root/dev/${name%:*}"; done
  local variables=(HOME=/root LANG=C.UTF-8 TERM=dumb PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin)
  for name in http_proxy https_proxy no_proxy JOBS; do
    [ -z "${!name:-}" ] || variables+=("$name=${!name}")
  done
  if [ -n "${CCACHE_DIR:-}" ]; then
    mkdir -p "$root/ccache"
    mount --bind "$CCACHE_DIR" "$root/ccache"
    variables+=(CCACHE_DIR=/ccache "CCACHE_BASEDIR=$CHECKOUT" CCACHE_NOHASHDIR=1
      CCACHE_INODECACHE=1
      CCACHE_SLOPPINESS=pch_defines,time_macros CMAKE_CXX_COMPILER_LAUNCHER=ccache)
  fi
  if [ -n "${RUNAHEAD_ASSETS:-}" ]; then
    mkdir -p "$root/assets"
    mount --bind -o ro "$RUNAHEAD_ASSETS" "$root/assets"
    variables+=(RUNAHEAD_ASSETS=/assets)
  fi
  cp -L /etc/resolv.conf /etc/hosts "$root/etc/"
  cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"  # those that this machine's network needs
  exec chroot "$root" /usr/bin/env -i "${variables[@]}" bash -c "$2"
}
if [ "${1:-}" = --enter ]; then
  enter "$2" "$3"
fi

[ $# -gt 0 ] || { sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//p}' "$0" >&2; exit 2; }
suite=$1
shift
[ $# -gt 0 ] || set -- 'make demo' 'make test'
self=$(realpath "$0")
cd "$(dirname "$0")/.."
# The clone gets the same path, since joined sources have it in them: so this machine's builds find its objects.
case $PWD/ in
  /dev/* | /proc/* | /sys/*) export CHECKOUT=/root/runahead ;;  # mounted anew for each command
  *) export CHECKOUT=$PWD ;;
esac
[ "$(id -u)" = 0 ] || { echo "fresh.sh: skipped, it needs root"; exit 77; }
spaces=(unshare --mount --pid --ipc --fork --kill-child --propagation private)
"${spaces[@]}" mount -t tmpfs tmpfs /mnt 2>/dev/null || { echo "fresh.sh: skipped, no name spaces here"; exit 77; }

packages=git,make,ca-certificates${CCACHE_DIR:+,ccache}${RUNAHEAD_ASSETS:+,xz-utils}
folder=${FRESH_FOLDER:-/var/tmp/runahead-fresh}
bare=$folder/$suite${CCACHE_DIR:+-ccache}${RUNAHEAD_ASSETS:+-xz}.tar
mkdir -p "$folder" ${CCACHE_DIR:+"$CCACHE_DIR"}
work=$(mktemp -d "$folder/$suite.XXXXXX")
child=  # what runs inside; it ends before its root goes
trap '[ -z "$child" ] || { kill -KILL "$child"; wait "$child"; } 2>/dev/null || true; rm -rf --one-file-system "$work"' EXIT
trap 'exit 143' INT TERM HUP

# Addresses of archives that this machine's apt takes packages from, whose last part is named so.
archive() { apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -E "/($1)/?$" | sort -u | head -n 1; }
make_bare() {
  command -v mmdebstrap >/dev/null || DEBIAN_FRONTEND=noninteractive apt-get install -q -y mmdebstrap >/dev/null ||
    fail "mmdebstrap is missing"
  local from security
  from=${FRESH_MIRROR:-$(archive 'debian|ubuntu' || true)}
  [ -n "$from" ] || fail "this machine's apt names no archive: set FRESH_MIRROR"
  case $from in
    *ubuntu*) printf "deb $from $suite%s main universe\n" '' -updates -security ;;
    *)
      printf "deb $from $suite%s main\n" '' -updates
      security=$(archive debian-security || true)
      [ -z "$security" ] || echo "deb $security $suite-security main"
      ;;
  esac >"$work/sources.list"
  # How this machine reaches the archive, without passwords.
  apt-config dump | grep -E '^Acquire::[^ ]*(Proxy|CaInfo|Timeout|Retries|Verify)' | grep -v '//[^/]*@' >"$work/apt.conf" || true
  mmdebstrap --quiet --variant=minbase --include="$packages" --aptopt="$work/apt.conf" "$suite" "$work/bare.tar" \
    "$work/sources.list" || fail "mmdebstrap could not make $suite"
  mv "$work/bare.tar" "$bare"
}
[ -n "$(find "$bare" -mtime -7 2>/dev/null)" ] || make_bare

root=$work/root
mkdir "$root"
tar -xpf "$bare" -C "$root" --exclude './dev/*'
git -c safe.directory='*' bundle create -q "$root/root/runahead.bundle" HEAD
inside() {
  local status=0
  "${spaces[@]}" bash "$self" --enter "$root" "$1" </dev/null &
  child=$!
  wait "$child" || status=$?
  child=
  return $status
}
inside "git -c init.defaultBranch=main -c advice.detachedHead=false clone -q /root/runahead.bundle ${CHECKOUT@Q}" || fail "the clone failed"
echo "fresh.sh: $suite with ${packages//,/, } alone; $(git -c safe.directory='*' log -1 --format='%h %s')"
for command in "$@"; do
  log=$folder/$suite-$(tr -cs 'A-Za-z0-9' - <<<"$command" | cut -c1-60).log
  begin=$SECONDS
  if ! inside "cd ${CHECKOUT@Q} && $command" >"$log" 2>&1; then
    tail -n 60 "$log"
    echo "fresh.sh: $suite: '$command' failed after $((SECONDS - begin)) s; all it said: $log"
    exit 1
  fi
  tail -n "${FRESH_LINES:-6}" "$log"
  echo "fresh.sh: $suite: '$command' passed in $((SECONDS - begin)) s"
done
