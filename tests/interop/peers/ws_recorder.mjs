// A minimal WebSocket tracker that lets WebTorrent clients meet: ws_recorder.mjs NODE_MODULES PORT.
// Prints each client's upgrade request ({head}) and text frames ({text}), one JSON object per line.

import { createServer } from 'node:http'
import { createRequire } from 'node:module'

const [modules, port] = process.argv.slice(2)
const { WebSocketServer } = createRequire(`${modules}/`)('ws')
const peers = new Map()
const record = (entry) => console.log(JSON.stringify(entry))

const server = createServer()
server.on('upgrade', (request) => {
  const headers = request.rawHeaders
  let head = `${request.method} ${request.url} HTTP/${request.httpVersion}\r\n`
  for (let at = 0; at < headers.length; at += 2) head += `${headers[at]}: ${headers[at + 1]}\r\n`
  record({ head: `${head}\r\n` })
})
new WebSocketServer({ server, perMessageDeflate: false }).on('connection', (socket) => {
  socket.on('message', (data) => {
    const text = data.toString()
    record({ text })
    const said = JSON.parse(text)
    const { action, info_hash, peer_id } = said
    if (action === 'scrape') {
      const files = { [info_hash]: { complete: 1, incomplete: 1, downloaded: 1 } }
      socket.send(JSON.stringify({ action, files }))
      return
    }
    if (said.answer) {
      const { answer, offer_id, to_peer_id } = said
      peers.get(to_peer_id)?.send(JSON.stringify({ action, info_hash, peer_id, answer, offer_id }))
      return
    }
    for (const { offer, offer_id } of said.offers ?? []) {
      for (const [other, theirs] of peers) {
        if (other !== peer_id) theirs.send(JSON.stringify({ action, info_hash, peer_id, offer, offer_id }))
      }
    }
    peers.set(peer_id, socket)
    socket.send(JSON.stringify({ action, info_hash, interval: 120, complete: 1, incomplete: 1 }))
  })
})
server.listen(Number(port), '::', () => record({ listening: true }))
