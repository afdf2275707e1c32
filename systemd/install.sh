#!/bin/sh
# Puts Sheepdog's units where systemd finds them, with this package's own paths in them, and its manual pages where man(1)
# does; --uninstall takes them away again.
# Configuration and stores are never overwritten and never removed.
#
#   systemd/install.sh [--root DIRECTORY] [--uninstall]
#
# --root: below that directory instead of / (for packages and tests); systemd is told nothing then.
set -eu

units='sheep.service sheep@.service sheep-nbd.socket sheep-iscsi.socket sheepfs@.service sheepdog.target'
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd -P)
package=$(dirname -- "$here")
root=''
action=install
while [ $# -gt 0 ]; do
  case $1 in
    --root) root=${2:?--root needs a directory}; shift ;;
    --uninstall) action=uninstall ;;
    -h | --help) sed -n '2,/^set/s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) echo "install.sh: '$1' is none of --root DIRECTORY, --uninstall" >&2; exit 2 ;;
  esac
  shift
done
unit_directory=$root/etc/systemd/system
users=$root/etc/sysusers.d/sheepdog.conf
manual=$root/usr/local/share/man

systemd_runs() { [ -z "$root" ] && [ -d /run/systemd/system ]; }

if [ -z "$root" ] && [ "$(id -u)" != 0 ]; then
  echo 'install.sh: only root may do that (or give --root DIRECTORY)' >&2
  exit 1
fi

if [ $action = uninstall ]; then
  if systemd_runs; then
    systemctl disable --now $units 2>/dev/null || true
    systemctl stop 'sheep@*.service' 'sheepfs@*.service' 2>/dev/null || true
  fi
  for unit in $units; do rm -f "$unit_directory/$unit"; done
  rm -f "$users"
  for page in "$package"/man/*.[578]; do rm -f "$manual/man${page##*.}/${page##*/}"; done
  systemd_runs && systemctl daemon-reload
  echo 'The units are gone. Left as they are: /etc/sheepdog, the stores in /var/lib/sheepdog*, the user sheepdog.'
  exit 0
fi

node=$(command -v node) || { echo 'install.sh: node is not in the path' >&2; exit 1; }
node=$(readlink -f -- "$node")
sheep=$package/build/bin/sheep.cjs
sheepfs=$package/build/bin/sheepfs.js
[ -e "$sheep" ] || { echo "install.sh: $sheep is missing: run 'npm run setup' first" >&2; exit 1; }
# Units do not see the home directories of users (ProtectHome=).
case $node:$package in
  /home/* | /root/* | *:/home/* | *:/root/*)
    echo "install.sh: services cannot reach $node and $package below /home or /root:" >&2
    echo "  install the package elsewhere (npm install -g, or below /opt) and run its install.sh" >&2
    [ -n "$root" ] || exit 1 ;;
esac

mkdir -p "$unit_directory" "$root/etc/sysusers.d" "$root/etc/sheepdog"
for unit in $units; do
  if [ "$unit" = sheepfs@.service ] && [ ! -e "$sheepfs" ]; then
    rm -f "$unit_directory/$unit"
    continue
  fi
  sed -e "s|^ExecStart=/usr/bin/sheep |ExecStart=$node $sheep |" \
    -e "s|^ExecStart=/usr/bin/sheepfs |ExecStart=$node $sheepfs |" "$here/$unit" > "$unit_directory/$unit.new"
  mv "$unit_directory/$unit.new" "$unit_directory/$unit"
done
cp "$here/sheepdog.sysusers" "$users"
for page in "$package"/man/*.[578]; do
  section=$manual/man${page##*.}
  if ! { mkdir -p "$section" && cp "$page" "$section/"; } 2>/dev/null; then
    echo "install.sh: no manual pages: $manual cannot be written ('man -l $package/man/sheep.8' shows one)" >&2
    break
  fi
done
[ -e "$root/etc/sheepdog/sheep.toml" ] || cp "$here/sheep.toml" "$root/etc/sheepdog/sheep.toml"
if [ -z "$root" ]; then
  systemd-sysusers "$users"
  # Corosync lets root and whom this names talk to it.
  if [ -d /etc/corosync/uidgid.d ]; then
    printf 'uidgid {\n  uid: sheepdog\n  gid: sheepdog\n}\n' > /etc/corosync/uidgid.d/sheepdog
  fi
fi
systemd_runs && systemctl daemon-reload
echo "Next: look at /etc/sheepdog/sheep.toml, then: systemctl enable --now sheep.service"
