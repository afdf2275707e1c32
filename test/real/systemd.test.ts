/** Sheepdog as services of a real systemd, and the sockets it is passed. */
import { existsSync } from 'node:fs'
import test from 'ava'
import { scratch } from './support/owner.js'
import { DOG, PROJECT, SHEEP } from './support/paths.js'
import { freePort } from './support/ports.js'
import { run, start, tryRun, until } from './support/run.js'
import { needing } from './support/suite.js'
import { BOX_NODE, BOX_PROJECT, boxRefusal, inBox } from './support/systemd-box.js'

const UNITS = ['sheep.service', 'sheep@a.service', 'sheep-nbd.socket', 'sheep-iscsi.socket']
/** Tenths: 4.0 and better. */
const EXPOSURE_MAX = 40

const analyzing = needing('systemd-analyze')

analyzing('the units are what systemd accepts, and expose little', async (t) => {
  const root = await scratch(t)
  await run(['sh', `${PROJECT}systemd/install.sh`, '--root', root])
  const directory = `${root}/etc/systemd/system`
  const paths = [...UNITS, 'sheepdog.target'].map((name) => `${directory}/${name}`)
  await run(['systemd-analyze', 'verify', '--recursive-errors=no', ...paths])
  for (const unit of ['sheep.service', 'sheep@.service', 'sheepfs@.service']) {
    // Of sheepfs the package may be without its binary; what it may do is in the unit all the same.
    const path = unit.startsWith('sheepfs') ? `${PROJECT}systemd/${unit}` : `${directory}/${unit}`
    const limit = ['--offline=true', `--threshold=${EXPOSURE_MAX}`, '--no-pager']
    await run(['systemd-analyze', 'security', ...limit, path])
  }
  await run(['sh', `${PROJECT}systemd/install.sh`, '--root', root, '--uninstall'])
  const left = await run(['find', root, '-type', 'f'])
  t.is(left.stdout.trim(), `${root}/etc/sheepdog/sheep.toml`)
})

test('the example configuration is one the sheep accepts', async (t) => {
  const check = ['--check-config', '--config', `${PROJECT}systemd/sheep.toml`]
  const { code, stderr } = await tryRun([process.execPath, SHEEP, ...check])
  t.is(code, 0, stderr)
})

const activating = needing('systemd-socket-activate', 'nbdinfo', 'python3')

/** Prints what the manager of a service would hear, a line a datagram, until its input ends. */
const LISTENER = `
import os, socket, sys, threading
manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
manager.bind('\\0' + sys.argv[1])
def hear():
    while True: print(manager.recv(4096).decode().replace('\\n', ' '), flush=True)
threading.Thread(target=hear, daemon=True).start()
print('listens', flush=True)
sys.stdin.read()
`

for (const [way, hidden] of [
  ['its binding', ''],
  ['systemd-notify', 'service'],
] as const) {
  activating(`a sheep takes passed sockets over and tells its manager by ${way}`, async (t) => {
    const directory = await scratch(t)
    const [port, nbdPort] = [await freePort(), await freePort()]
    const name = `sheepdog-test-${port}`
    const manager = start(['python3', '-c', LISTENER, name], { interactive: true })
    t.teardown(() => manager.kill('SIGKILL'))
    let heard = ''
    manager.child.stdout?.on('data', (chunk: Buffer) => {
      heard += chunk.toString()
    })
    await until('the manager to listen', 20_000, () => heard.startsWith('listens'))
    const settings = [`NOTIFY_SOCKET=@${name}`, `SHEEPDOG_WITHOUT=${hidden}`]
    const places = ['-p', `${port}`, '-b', '127.0.0.1', '-y', '127.0.0.1']
    const sheep = start([
      'systemd-socket-activate',
      ...['-l', `127.0.0.1:${nbdPort}`, '-l', `${directory}/nbd.sock`, '--fdname=nbd:nbd'],
      ...settings.flatMap((setting) => ['-E', setting]),
      ...[process.execPath, SHEEP, '-f', '-c', `local:${directory}/meeting`, ...places],
      ...['--no-config', '--nbd', `127.0.0.1:${nbdPort}`, `${directory}/store`],
    ])
    t.teardown(() => sheep.kill('SIGKILL'))
    await until('READY', 60_000, async () => {
      // The first client that finds the socket wakes it up.
      await tryRun(['nbdinfo', '--list', `nbd://127.0.0.1:${nbdPort}`])
      return /READY=1/.test(heard)
    })
    await run([process.execPath, DOG, 'cluster', 'format', '-c', '1', '-p', `${port}`])
    await run([process.execPath, DOG, 'vdi', 'create', 'Alice', '64M', '-p', `${port}`])
    const uri = `nbd+unix:///Alice?socket=${directory}/nbd.sock`
    t.regex((await run(['nbdinfo', '--size', uri])).stdout, /^67108864$/m)
    await until('the new status', 20_000, () => /STATUS=Serving \(epoch 1, 1 node\)/.test(heard))
    sheep.kill('SIGTERM')
    t.is((await sheep.done).code, 0)
    await until('the end', 20_000, () => /STOPPING=1/.test(heard))
    manager.kill('SIGTERM')
  })
}

activating('a socket that is for no door ends the start with what would be right', async (t) => {
  const directory = await scratch(t)
  const nbdPort = await freePort()
  const activate = ['systemd-socket-activate', '-l', `127.0.0.1:${nbdPort}`, '--fdname=http']
  const sheep = start([...activate, process.execPath, SHEEP, '-f', '--no-config', directory])
  t.teardown(() => sheep.kill('SIGKILL'))
  // Its socket listens before it says so.
  await tryRun(['nbdinfo', '--list', `nbd://127.0.0.1:${nbdPort}`])
  await until('the end of the sheep', 20_000, async () => {
    if (sheep.ended()) return true
    await tryRun(['nbdinfo', '--list', `nbd://127.0.0.1:${nbdPort}`])
    return false
  })
  const { code, stderr } = await sheep.done
  t.is(code, 1)
  t.regex(stderr, /for 'http', which is no door: FileDescriptorName= is one of nbd, sheepdog/)
})

const CONFIG = `path = "/var/lib/sheepdog"
log = "dst=stdout"
cluster = "local:box"
bindaddr = "127.0.0.1"
myaddr = "127.0.0.1"
port = 7000
[nbd]
listen = ["127.0.0.1:10809"]
`

/** Faster than an administrator would want it, so that the test need not wait. */
const HASTE = `[Service]
RestartSec=200ms
WatchdogSec=3
`

/** What sheepfs needs, here and in the box. */
const HAS_FUSE = existsSync('/dev/fuse')

const FILES_SCRIPT = `# Disks as files: mounted when systemd says so, back when the process is killed, gone when it is stopped.
echo "at $SECONDS s"
head -c 1M /dev/urandom > /tmp/content
nbdcopy --flush /tmp/content nbd://127.0.0.1:10809/Alice
mkdir -p /mnt/disks
files=$(systemd-escape --template=sheepfs@.service --path /mnt/disks)
mkdir -p "/etc/systemd/system/$files.d"
printf '[Service]\nRestartSec=200ms\n' > "/etc/systemd/system/$files.d/haste.conf"
systemctl daemon-reload
systemctl start "$files"
grep -o ' /mnt/disks fuse.sheepfs' /proc/mounts
cmp -n 1048576 /tmp/content /mnt/disks/vdi/Alice/disk.raw && echo "file: the disk's bytes"
echo "files: $(show "$files" StatusText)"
pid=$(show "$files" MainPID)
kill -KILL $pid
waits '[ "$(show "$files" MainPID)" != '$pid' ] && systemctl -q is-active "$files"'
cmp -n 1048576 /tmp/content /mnt/disks/vdi/Alice/disk.raw && echo "file again: the disk's bytes"
echo "mounts: $(grep -c ' /mnt/disks ' /proc/mounts)"
systemctl stop "$files"
echo "files stopped: $(show "$files" Result), mounts: $(grep -c ' /mnt/disks ' /proc/mounts)"
`

const SCRIPT = `
dog() { ${BOX_NODE} ${BOX_PROJECT}/build/bin/dog.js "$@"; }
show() { systemctl show --value -p "$2" "$1"; }
waits() { for i in $(seq 300); do if eval "$1"; then return 0; fi; sleep 0.1; done; echo "never: $1"; return 1; }
sh ${BOX_PROJECT}/systemd/install.sh
cat > /etc/sheepdog/sheep.toml <<'END'
${CONFIG}END
mkdir -p /etc/systemd/system/sheep.service.d
cat > /etc/systemd/system/sheep.service.d/haste.conf <<'END'
${HASTE}END
systemctl daemon-reload
systemctl enable sheep.service sheep-nbd.socket sheep-iscsi.socket
systemctl start sheepdog.target sheep-nbd.socket sheep-iscsi.socket
waits 'systemctl -q is-active sheep.service'
echo "user: $(ps -o user= -p $(show sheep.service MainPID))"
echo "first: $(show sheep.service StatusText)"
dog cluster format -c 1
dog vdi create Alice 64M
waits '[ "$(show sheep.service StatusText)" = "Serving (epoch 1, 1 node)" ]'
systemctl status --no-pager sheep.service | grep -o 'Status: .*'
systemctl reload sheep.service
echo "reloaded: $(systemctl is-active sheep.service)"

echo "size: $(nbdinfo --size nbd://127.0.0.1:10809/Alice)"
echo "unix size: $(nbdinfo --size 'nbd+unix:///Alice?socket=/run/sheepdog/nbd.sock')"
iscsi-ls iscsi://127.0.0.1:3260

${HAS_FUSE ? FILES_SCRIPT : ''}# Killed: back by itself. A client that comes meanwhile waits in the socket's queue.
echo "at $SECONDS s"
pid=$(show sheep.service MainPID)
kill -KILL $pid
waits '[ "$(show sheep.service MainPID)" != '$pid' ]'
echo "meanwhile: $(nbdinfo --size nbd://127.0.0.1:10809/Alice)"
waits 'systemctl -q is-active sheep.service'
echo "restarts: $(show sheep.service NRestarts)"

# Stopped by somebody who is not asked: the watchdog ends it, and it comes back.
echo "at $SECONDS s"
pid=$(show sheep.service MainPID)
kill -STOP $pid
waits '[ "$(show sheep.service MainPID)" != '$pid' ]'
waits 'systemctl -q is-active sheep.service'
journalctl -q --no-pager -u sheep.service | grep -o 'Watchdog timeout' | head -1

# Stopped in order; the next client starts it again.
echo "at $SECONDS s"
began=$(date +%s)
systemctl stop sheep.service
echo "stopped: $(show sheep.service Result) $(( $(date +%s) - began < 15 ))"
echo "woken: $(nbdinfo --size nbd://127.0.0.1:10809/Alice)"
waits 'systemctl -q is-active sheep.service'
systemctl stop sheep.service
echo "woken by iSCSI: $(iscsi-ls iscsi://127.0.0.1:3260)"
waits 'systemctl -q is-active sheep.service'

echo "at $SECONDS s"
# A second one on the same host.
sed -e 's/port = 7000/port = 7001/' -e 's/10809/10810/' -e 's#lib/sheepdog#lib/sheepdog-b#' \\
  /etc/sheepdog/sheep.toml > /etc/sheepdog/b.toml
systemctl start sheep@b.service
waits '[ "$(show sheep.service StatusText)" = "Serving (epoch 2, 2 nodes)" ] || [[ "$(show sheep.service StatusText)" == *", 2 nodes)" ]]'
echo "two: $(show sheep@b.service StatusText | grep -o '2 nodes')"
echo "at $SECONDS s"
systemctl stop sheepdog.target
waits '! systemctl -q is-active sheep.service sheep@b.service'
journalctl -q --no-pager -u sheep.service -o json | grep '"MESSAGE":"INFO \\[[0-9]*:main\\] node.up' | grep -c '"PRIORITY":"6"'
echo "at $SECONDS s"
sh ${BOX_PROJECT}/systemd/install.sh --uninstall
echo "left: $(ls /etc/systemd/system/*.service 2>/dev/null | wc -l) $(ls -d /var/lib/sheepdog)"
`

const refusal = boxRefusal()
const boxed = refusal === undefined ? test.serial : test.serial.skip

boxed(`under systemd: sockets, status, restart, watchdog, stop ${refusal ?? ''}`, async (t) => {
  const { output } = await inBox(t, SCRIPT)
  t.log(output)
  const has = (text: RegExp) => t.regex(output, text)
  has(/^user: sheepdog$/m)
  has(/^first: Waiting for 'dog cluster format'; 1 node so far$/m)
  has(/^Status: "Serving \(epoch 1, 1 node\)"$/m)
  has(/^reloaded: active$/m)
  for (const what of ['size', 'unix size', 'meanwhile', 'woken']) {
    has(new RegExp(`^${what}: 67108864$`, 'm'))
  }
  t.is(output.match(/^(woken by iSCSI: )?Target:iqn\.2026-11\.io\.sheepdog:Alice /gm)?.length, 2)
  if (HAS_FUSE) {
    has(/^ \/mnt\/disks fuse\.sheepfs$/m)
    has(/^file: the disk's bytes$/m)
    has(/^file again: the disk's bytes$/m)
    has(/^mounts: 1$/m)
    has(/^files stopped: success, mounts: 0$/m)
  }
  has(/^restarts: 1$/m)
  has(/^Watchdog timeout$/m)
  has(/^stopped: success 1$/m)
  has(/^two: 2 nodes$/m)
  has(/^left: 0 \/var\/lib\/sheepdog$/m)
})
