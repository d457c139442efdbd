// Runs WebTorrent as one peer: webtorrent_peer.mjs NODE_MODULES SOURCE DIRECTORY PORT.
// SOURCE is a torrent file or a magnet link.
// Leaves its tracker on SIGTERM.

import { readFileSync } from 'node:fs'
import { pathToFileURL } from 'node:url'

const [modules, source, directory, port] = process.argv.slice(2)
const { default: WebTorrent } = await import(pathToFileURL(`${modules}/webtorrent/index.js`))

const client = new WebTorrent({
  dht: false,
  lsd: false,
  natUpnp: false,
  natPmp: false,
  utp: false,
  utPex: false,
  torrentPort: Number(port),
})
client.on('error', (error) => { console.log('error', error); process.exit(1) })

const added = client.add(source.startsWith('magnet:') ? source : readFileSync(source), { path: directory })
for (const event of ['ready', 'warning', 'noPeers', 'trackerAnnounce', 'done']) {
  added.on(event, (...what) => console.log(event, ...what))
}
added.once('trackerAnnounce', () => added.discovery.tracker.scrape())
added.on('wire', (wire, address) => console.log('wire', wire.type, address))

process.on('SIGTERM', () => client.destroy(() => process.exit(0)))
