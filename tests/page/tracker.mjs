// Starts a tracker with peers from several ISDs, for look.mjs.
import { spawn } from 'node:child_process';
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

const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function freePort() {
  const server = net.createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** Status and body of a reply. Each source is a host of its own. */
export function get(url, { source, method = 'GET' } = {}) {
  return new Promise((resolve, reject) => {
    const request = http.request(url, { method, localAddress: source, agent: false }, (reply) => {
      const parts = [];
      reply.on('data', (part) => parts.push(part));
      reply.on('end', () => resolve({ status: reply.statusCode, headers: reply.headers, body: Buffer.concat(parts) }));
    });
    request.setTimeout(30000, () => request.destroy(new Error(`${url} does not answer`)));
    request.on('error', reject);
    request.end();
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

export class Tracker {
  announced = 0;

  static async start(binary) {
    const tracker = new Tracker();
    tracker.directory = mkdtempSync(join(tmpdir(), 'scion-tracker-page-'));
    const [http1, https, admin] = [await freePort(), await freePort(), await freePort()];
    tracker.http = `http://127.0.0.1:${http1}`;
    tracker.admin = `http://127.0.0.1:${admin}`;
    const config = join(tracker.directory, 'config.toml');
    writeFileSync(config, `
data_dir = '${join(tracker.directory, 'data')}'
public_urls = ['udp://tracker.example.org:6969/announce', 'https://tracker.example.org/announce']
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
    tracker.process = spawn(binary, ['--config', config], { stdio: ['ignore', out, out] });
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

  stop() {
    this.process.kill();
    rmSync(this.directory, { recursive: true, force: true });
  }
}
