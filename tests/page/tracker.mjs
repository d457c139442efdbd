// Starts trackers, with peers from several ISDs, for look.mjs.
import { spawn } from 'node:child_process';
import dgram from 'node:dgram';
import { mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import http from 'node:http';
import net from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

export const TOKEN = 'token-of-the-page-test';
const CLIENTS = ['qB4650', 'qB4520', 'TR4060', 'LT20A0', 'DE2110', 'UT3550', 'BI3500', 'A21370'];
// A place for each of a hundred announces. Most torrents are shared by neighbours.
const PLACES = [
  ['71-20965', 22], ['71-2:0:3b', 9], ['71-2:0:5c', 7], ['71-225', 6], ['71-88', 4],
  ['64-2:0:9', 12], ['64-559', 8], ['64-15623', 5], ['64-6730', 3],
  ['19-ffaa:0:1303', 7], ['19-ffaa:1:10a', 4], ['17-ffaa:0:1102', 3], [null, 10],
].flatMap(([ia, weight]) => Array(weight).fill(ia));

const URLS = ['udp://tracker.example.org:6969/announce', 'https://tracker.example.org/announce'];

/** How much faster the clock of a tracker with `hurry` runs. */
export const HURRY = 60;

export const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function freePort() {
  const server = net.createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** Status and body of a reply. Each source is a host of its own. */
export function get(url, { source, method = 'GET', body } = {}) {
  return new Promise((resolve, reject) => {
    const headers = body ? { 'content-type': 'application/json' } : {};
    const request = http.request(url, { method, headers, localAddress: source, agent: false }, (reply) => {
      const parts = [];
      reply.on('data', (part) => parts.push(part));
      reply.on('end', () => resolve({ status: reply.statusCode, headers: reply.headers, body: Buffer.concat(parts) }));
    });
    request.setTimeout(30000, () => request.destroy(new Error(`${url} does not answer`)));
    request.on('error', reject);
    request.end(body);
  });
}

/** Asks until the answer is true. */
export async function until(what, ask, seconds = 60) {
  const end = Date.now() + seconds * 1000;
  for (;;) {
    const answer = await ask();
    if (answer) return answer;
    if (Date.now() > end) throw new Error(`${what} does not happen within ${seconds} s`);
    await wait(200);
  }
}

/** A socket that announces over UDP (BEP 15, with the path of BEP 41), from one host. */
class UdpClient {
  waiting = new Map();

  static async open(port, source) {
    const client = new UdpClient();
    client.socket = dgram.createSocket('udp4');
    client.socket.on('message', (reply) => {
      const id = reply.readUInt32BE(4);
      client.waiting.get(id)?.(reply);
      client.waiting.delete(id);
    });
    await new Promise((resolve) => client.socket.bind(0, source, resolve));
    await new Promise((resolve) => client.socket.connect(port, '127.0.0.1', resolve));
    return client;
  }

  async ask(request) {
    const id = Math.floor(Math.random() * 2 ** 32);
    request.writeUInt32BE(id, 12);
    const answer = new Promise((resolve) => this.waiting.set(id, resolve));
    this.socket.send(request);
    return Promise.race([answer, wait(2000)]);
  }

  /** Takes a connection id. It is good for a minute or two of the tracker's clock. */
  async connect() {
    const request = Buffer.alloc(16);
    request.writeBigUInt64BE(0x41727101980n, 0);
    const reply = await this.ask(request);
    if (reply?.readUInt32BE(0) === 0) this.connection = reply.subarray(8, 16);
  }

  async announce({ infoHash, peerId, port, left, path }) {
    const request = Buffer.alloc(98 + 2 + path.length);
    this.connection.copy(request, 0);
    request.writeUInt32BE(1, 8);
    request.write(infoHash, 16, 'latin1');
    request.write(peerId, 36, 'latin1');
    request.writeBigUInt64BE(BigInt(left), 64);
    request.writeInt32BE(-1, 92);
    request.writeUInt16BE(port, 96);
    request.writeUInt8(2, 98);
    request.writeUInt8(path.length, 99);
    request.write(path, 100, 'latin1');
    const reply = await this.ask(request);
    return reply?.readUInt32BE(0) === 1;
  }
}

/** Announces one of many peers: each is in one torrent, few torrents have many. */
async function announceUdp(client, peer) {
  const ia = PLACES[(peer * 37) % PLACES.length];
  const name = CLIENTS[(peer * peer) % CLIENTS.length];
  const torrent = Math.floor(240 * ((peer * 7919 % 1000) / 1000) ** 2);
  await client.announce({
    infoHash: `torrent ${String(torrent).padStart(12, '0')}`,
    peerId: `-${name}-${String(peer).padStart(12, '0')}`,
    port: 2000 + Math.floor(peer / 40),
    left: peer % 3,
    path: ia ? `/announce?ia=${ia}` : '/announce',
  });
}

/** How many announces there are at each moment of an hour: a wave with a small one on it. */
const wave = (part) => 0.62 + 0.28 * Math.sin(part * 5 - 1.4) + 0.06 * Math.sin(part * 31);

export class Tracker {
  announced = 0;

  /** With `hurry`, the clock of the tracker runs faster, by Debian's faketime. */
  static async start(binary, { settings = '', hurry = false, urls = URLS } = {}) {
    const tracker = new Tracker();
    tracker.binary = binary;
    tracker.directory = mkdtempSync(join(tmpdir(), 'scion-tracker-page-'));
    const [http1, https, admin] = [await freePort(), await freePort(), await freePort()];
    tracker.port = http1;
    tracker.https = https;
    tracker.http = `http://127.0.0.1:${http1}`;
    tracker.admin = `http://127.0.0.1:${admin}`;
    const config = join(tracker.directory, 'config.toml');
    writeFileSync(config, `
data_dir = '${join(tracker.directory, 'data')}'
public_urls = ${JSON.stringify(urls)}
[listen]
udp = ['127.0.0.1:${http1}']
http = ['127.0.0.1:${http1}']
https = ['127.0.0.1:${https}']
http3 = ['127.0.0.1:${https}']
admin = ['127.0.0.1:${admin}']
[admin]
token = '${TOKEN}'
[page]
public = true
${settings}
[access]
deny_clients = ['-XX']
announces_per_second = 100
announces_at_once = 1000
unlimited = []
[registry]
peers_per_source_in_torrent = 255
`);
    const log = join(tracker.directory, 'log');
    const out = openSync(log, 'w');
    const command = hurry ? ['faketime', '-f', `+0 x${HURRY}`, binary] : [binary];
    // A group of its own: faketime does not pass signals on.
    const options = { stdio: ['ignore', out, out], detached: true };
    tracker.process = spawn(command[0], [...command.slice(1), '--config', config], options);
    const ready = async () => {
      if (tracker.process.exitCode !== null) throw new Error(`the tracker ended:\n${readFileSync(log)}`);
      return get(`${tracker.admin}/health/ready`).then(({ status }) => status === 200, () => false);
    };
    await until('the start of the tracker', ready);
    return tracker;
  }

  /** Announces so many peers. */
  async announce(count) {
    for (let left = count; left > 0; left -= 1) {
      const n = (this.announced += 1);
      const ia = PLACES[(n * 37) % PLACES.length];
      const client = CLIENTS[(n * n) % CLIENTS.length];
      const torrent = String.fromCharCode(65 + (n * n + n) % 20).repeat(20);
      const query = `info_hash=${torrent}&peer_id=-${client}-${String(n % 900).padStart(12, '0')}`
        + `&port=${2000 + n % 900}&left=${n % 3}${ia ? `&ia=${ia}` : ''}`;
      const { status } = await get(`${this.http}/announce?${query}`, { source: `127.0.1.${1 + n % 40}` });
      if (status !== 200) throw new Error(`announce: ${status}`);
    }
    const refused = `info_hash=${'Z'.repeat(20)}&peer_id=-XX0000-000000000000&port=1&left=1`;
    await get(`${this.http}/announce?${refused}`);
  }

  /**
   * Serves an hour of the tracker's clock: peers announce over UDP and HTTP, and over HTTP/3 with the program's
   * own load. Goes on until `isOver()`.
   */
  async liveAnHour(isOver) {
    const load = ['bench', `h3://127.0.0.1:${this.https}/announce`, '--insecure', '--connections', '4', '--rate', '90',
      '--peers', '260', '--torrents', '20', '--mix', 'announce=100', '--duration', '180s'];
    const bench = spawn(this.binary, load, { stdio: 'ignore' });
    const clients = await Promise.all(Array.from({ length: 40 }, (_, at) => UdpClient.open(this.port, `127.0.1.${1 + at}`)));
    const begun = Date.now();
    let connected = 0;
    while (!isOver()) {
      const now = Date.now();
      // A second is a minute of the tracker.
      if (now - connected > 700) {
        await Promise.all(clients.map((client) => client.connect()));
        connected = now;
      }
      const part = (now - begun) / (3600_000 / HURRY);
      const some = Math.round(40 * wave(Math.min(part, 1)));
      await Promise.all(Array.from({ length: some }, () => {
        const peer = Math.floor(Math.random() * 12_000);
        return announceUdp(clients[peer % clients.length], peer);
      }));
      if (Math.random() < 0.5) await this.announce(2);
      await wait(40);
    }
    for (const client of clients) client.socket.close();
    bench.kill();
  }

  /** Announces one peer in each of so many ASes with the longest names, in 40 ISDs. */
  async announceEverywhere(ases) {
    for (let n = 0; n < ases; n += 1) {
      const ia = `${65535 - n % 40}-ffff:ffff:${(65535 - n).toString(16)}`;
      const query = `info_hash=${'%FF'.repeat(18)}${String(10 + n % 50)}&peer_id=-qB4650-${String(n).padStart(12, '0')}`
        + `&port=${2000 + n}&left=1&ia=${ia}`;
      const { status } = await get(`${this.http}/announce?${query}`, { source: `127.0.2.${1 + n % 100}` });
      if (status !== 200) throw new Error(`announce: ${status}`);
    }
  }

  stop() {
    try {
      process.kill(-this.process.pid);
    } catch (error) {
      if (error.code !== 'ESRCH') throw error;
    }
    rmSync(this.directory, { recursive: true, force: true });
  }
}
