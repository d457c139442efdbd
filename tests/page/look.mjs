// Looks at the page of statistics in Chromium: what it shows, whether axe-core finds something, with and without
// JavaScript, signed in and not, on the admin listener and on a public one, of trackers that are empty, large, drain or
// have lost their database. Makes the screenshots of the docs, of an hour that passes in a minute.
import { execFileSync, spawn } from 'node:child_process';
import assert from 'node:assert/strict';
import { mkdirSync, statSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import axe from 'axe-core';
import puppeteer from 'puppeteer-core';
import { HURRY, TOKEN, Tracker, get, until, wait } from './tracker.mjs';

const [binary, ...flags] = process.argv.slice(2);
const root = join(dirname(fileURLToPath(import.meta.url)), '../..');
const forDocs = flags.includes('--images');
const images = forDocs ? join(root, 'docs/images') : join(root, 'target/page');
// Bytes of the page with all it loads, and of a screenshot in the docs.
const PAGE_BYTES = 50_000;
const IMAGE_BYTES = 100_000;

const step = (name) => console.log(`ok  ${name}`);

/** A tab that notes all that goes wrong in it. */
async function open(browser, url, { width = 1280, height = 900, scheme = 'light', script = true } = {}) {
  const tab = await browser.newPage();
  tab.problems = [];
  const origin = new URL(url).origin;
  tab.on('console', (message) => {
    // A wrong token is answered with 401, which Chromium logs.
    if (message.type() === 'error' && !message.text().includes('status of 401')) tab.problems.push(message.text());
  });
  tab.on('pageerror', (error) => tab.problems.push(String(error)));
  tab.on('request', (request) => {
    if (new URL(request.url()).origin !== origin) tab.problems.push(`asks ${request.url()}`);
  });
  await tab.setViewport({ width, height });
  await tab.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: scheme }]);
  await tab.setJavaScriptEnabled(script);
  await tab.goto(url, { waitUntil: 'networkidle0' });
  return tab;
}

/** Runs axe-core, and checks that the page fits its window and that nothing went wrong. */
async function check(tab, name) {
  await tab.evaluate(axe.source);
  const { violations, passes } = await tab.evaluate(() => window.axe.run(document));
  const found = violations.flatMap(({ id, nodes }) => nodes.map((node) => `${id}: ${node.html} ${node.failureSummary}`));
  assert.deepEqual(found, [], name);
  assert.ok(passes.length > 20, `${name}: axe-core checked next to nothing`);
  const [wide, window_] = await tab.evaluate(() => [document.documentElement.scrollWidth, window.innerWidth]);
  assert.ok(wide <= window_, `${name}: ${wide} px wide in ${window_} px`);
  assert.deepEqual(tab.problems, [], name);
  step(`${name}: no violation in ${passes.length} rules of axe-core`);
}

const text = (tab, selector) => tab.$eval(selector, (element) => element.innerText);

async function shot(tab, name, height) {
  mkdirSync(images, { recursive: true });
  const path = join(images, `${name}.png`);
  const { width } = tab.viewport();
  await tab.evaluate(() => window.scrollTo(0, 0));
  await tab.screenshot({ path, clip: { x: 0, y: 0, width, height }, optimizeForSpeed: false });
  // 256 colors are enough for a page.
  if (forDocs) execFileSync('pngquant', ['--force', '--ext', '.png', path]);
  const { size } = statSync(path);
  if (forDocs) assert.ok(size < IMAGE_BYTES, `${name}.png has ${size} bytes`);
  step(`${name}.png: ${Math.round(size / 1000)} kB`);
}

async function looks(browser, tracker) {
  for (const scheme of ['light', 'dark']) {
    for (const [device, width, height] of [['desktop', 1280, 1000], ['phone', 390, 1100]]) {
      const tab = await open(browser, `${tracker.admin}/`, { width, height, scheme });
      await check(tab, `${device}, ${scheme}`);
      await shot(tab, `page-${device}-${scheme}`, height);
      if (device === 'desktop' && scheme === 'light') await says(tab);
      await tab.close();
    }
  }
}

/** What a visitor reads, and where the keyboard goes. */
async function says(tab) {
  assert.equal(await text(tab, 'h1'), 'tracker.example.org');
  const main = await text(tab, 'main');
  for (const expected of [/Near peers first/, /ISD 71/, /71-20965/, /ISD 64/, /qBittorrent/, /client denied/, /started, version/]) {
    assert.match(main, expected);
  }
  assert.match(await text(tab, '.near .lead'), /^\d+ % of the peers/);
  assert.equal(await tab.$('#hosts'), null);
  assert.equal(await tab.$('#torrents'), null);
  await tab.keyboard.press('Tab');
  assert.equal(await tab.evaluate(() => document.activeElement.innerText), 'Skip to the numbers');
  step('the page says who is where, and the keyboard finds its way');
}

async function withoutScript(browser, tracker) {
  const tab = await open(browser, `${tracker.admin}/stats`, { script: false });
  assert.equal(await tab.$('#pause'), null);
  assert.equal(await tab.$$eval('.tile .big', (all) => all.length), 4);
  assert.notEqual(await tab.$('.plot path'), null);
  await tab.type('input[type=password]', TOKEN);
  await Promise.all([tab.waitForNavigation(), tab.click('.operator button')]);
  assert.notEqual(await tab.$('#hosts'), null);
  assert.deepEqual(tab.problems, []);
  await tab.close();
  step('without JavaScript the page shows the same, and takes the token');
}

/** Numbers change without a reload of the page. */
async function refreshes(browser, tracker) {
  const tab = await open(browser, `${tracker.admin}/`);
  const seen = () => tab.$eval('#traffic ~ .scroll tbody tr:nth-child(2) td:nth-child(5)', (cell) => cell.innerText);
  const before = await seen();
  await tab.evaluate(() => { window.isSame = true; });
  await tracker.announce(20);
  await until('a refresh', async () => (await seen()) !== before);
  assert.equal(await tab.evaluate(() => window.isSame), true);
  assert.deepEqual(tab.problems, []);
  await tab.close();
  step('with JavaScript the numbers are refreshed in place');
}

/** A page in a browser says so if the tracker hangs: it neither answers nor closes the connection. */
async function hangs(browser, tracker) {
  const tab = await open(browser, `${tracker.admin}/`);
  const pill = () => text(tab, '.pill');
  assert.equal(await pill(), 'All is well');
  process.kill(tracker.process.pid, 'SIGSTOP');
  try {
    await until('a warning', async () => (await pill()) === 'The tracker does not answer');
  } finally {
    process.kill(tracker.process.pid, 'SIGCONT');
  }
  await until('an answer', async () => (await pill()) === 'All is well');
  await tab.close();
  step('a tracker that hangs is not said to be well');
}

async function submit(tab, form, fields) {
  for (const [name, value] of Object.entries(fields)) await tab.type(`${form} [name=${name}]`, value);
  await Promise.all([tab.waitForNavigation(), tab.click(`${form} button`)]);
}

async function operates(browser, tracker) {
  const tab = await open(browser, `${tracker.admin}/`);
  await submit(tab, '.operator', { token: 'a-wrong-token' });
  assert.match(await text(tab, '[role=alert]'), /not a token/);
  await check(tab, 'a wrong token');
  await submit(tab, '.operator', { token: TOKEN });
  assert.notEqual(await tab.$('#hosts'), null);
  assert.match(await text(tab, 'main'), /41414141/);
  await check(tab, 'signed in');
  const form = (what) => `form:has([value=${what}])`;
  await submit(tab, form('torrent'), { info_hash: '41'.repeat(20) });
  assert.match(await text(tab, '.notice'), /Torrent 4141[^]*Seeds[^]*127\.0\.1\./);
  await submit(tab, form('ban'), { target: '192.0.2.7', hours: '2', reason: 'test' });
  assert.match(await text(tab, '.notice'), /192\.0\.2\.7[^]* is banned/);
  await submit(tab, form('key'), { days: '3', note: 'for a test' });
  assert.match(await text(tab, '.notice'), /Key\s+[0-9A-Za-z]{32}/);
  assert.match(await text(tab, '.notice'), /https:\/\/tracker\.example\.org\/announce\/[0-9A-Za-z]{32}/);
  await check(tab, 'after a form');
  // Neither the address nor a cookie has the token.
  assert.equal(new URL(tab.url()).search, '');
  assert.deepEqual(await tab.cookies(), []);
  await tab.close();
  const bans = await get(`${tracker.admin}/api/v2/bans?token=${TOKEN}`);
  assert.match(bans.body.toString(), /192\.0\.2\.7/);
  step('an operator looks a torrent up, bans a host and makes a key');
}

async function isPublic(browser, tracker) {
  await until('the public page', async () => (await get(`${tracker.http}/`)).headers['content-type'].includes('html'));
  const tab = await open(browser, `${tracker.http}/`);
  await check(tab, 'the public page');
  for (const id of ['health', 'limits', 'hosts', 'torrents', 'events', 'operator']) {
    assert.equal(await tab.$(`#${id}`), null, id);
  }
  await tab.close();
  step('the public page shows only what is for everyone');
}

async function isSmall(tracker) {
  const paths = ['/', '/stats.css', '/stats.js', '/stats.svg'];
  const replies = await Promise.all(paths.map((path) => get(`${tracker.admin}${path}`)));
  const bytes = replies.reduce((sum, { body }) => sum + body.length, 0);
  assert.ok(bytes < PAGE_BYTES, `${bytes} bytes`);
  const policy = replies[0].headers['content-security-policy'];
  assert.match(policy, /^default-src 'none'/);
  assert.doesNotMatch(policy, /unsafe|\*/);
  step(`the page has ${bytes} bytes with all it loads`);
}

/** Everything can be reached and used with the keyboard, in the order of the page. */
async function byKeyboard(browser, tracker) {
  const tab = await open(browser, `${tracker.admin}/`);
  const reached = [];
  for (let presses = 0; presses < 30; presses += 1) {
    await tab.keyboard.press('Tab');
    const focus = await tab.evaluate(() => {
      const it = document.activeElement;
      const { height, width } = it.getBoundingClientRect();
      const { outlineStyle } = getComputedStyle(it);
      const name = it === document.body ? '' : it.id || it.name || it.getAttribute('aria-labelledby') || it.innerText;
      return { name, isSeen: height > 0 && width > 0 && outlineStyle !== 'none' };
    });
    // Behind the last one is the browser.
    if (!focus.name) break;
    assert.ok(focus.isSeen, `the focus on ${focus.name} cannot be seen`);
    reached.push(focus.name);
  }
  assert.deepEqual(reached.slice(0, 3), ['Skip to the numbers', 'pause', 'The numbers as a table']);
  assert.ok(reached.includes('token'), reached.join());
  await tab.focus('summary');
  await tab.keyboard.press('Enter');
  assert.equal(await tab.$eval('details', (it) => it.open), true);
  await tab.focus('input[type=password]');
  await tab.keyboard.type(TOKEN);
  await Promise.all([tab.waitForNavigation(), tab.keyboard.press('Enter')]);
  assert.notEqual(await tab.$('#hosts'), null);
  await tab.close();
  step(`the keyboard reaches ${reached.length} places, opens the table and signs in`);
}

/** Looks at a tracker in both sizes, one light and one dark, and returns what it says. */
async function state(browser, tracker, name, audience = tracker.admin) {
  let said;
  for (const [device, width, scheme] of [['desktop', 1280, 'light'], ['phone', 390, 'dark']]) {
    const tab = await open(browser, `${audience}/`, { width, height: 1100, scheme });
    await check(tab, `${name}, ${device}`);
    said = await text(tab, 'body');
    await whole(tab, `state-${name.replaceAll(' ', '-')}-${device}`);
    await tab.close();
  }
  return said;
}

/** A picture of the whole page, for whoever wants to look. Not for the docs. */
async function whole(tab, name) {
  const directory = join(root, 'target/page');
  mkdirSync(directory, { recursive: true });
  await tab.screenshot({ path: join(directory, `${name}.png`), fullPage: true });
}

async function isEmpty(browser) {
  const tracker = await Tracker.start(binary);
  try {
    const said = await state(browser, tracker, 'empty');
    for (const expected of [/No client with an ISD-AS has asked/, /There are no peers yet/, /Nobody was refused/]) {
      assert.match(said, expected);
    }
  } finally {
    tracker.stop();
  }
}

async function isLarge(browser) {
  const tracker = await Tracker.start(binary, { settings: 'torrents = true' });
  try {
    await tracker.announceEverywhere(200);
    await until('a census', async () => (await get(`${tracker.admin}/`)).body.includes('and 28 more ISDs'));
    const said = await state(browser, tracker, 'large');
    assert.match(said, /655\d\d-ffff:ffff:ff/);
    assert.match(said, /f{36}3130/);
  } finally {
    tracker.stop();
  }
}

/** Long names, long errors and large numbers on a narrow phone. */
async function isNarrow(browser) {
  const host = `${'a-tracker-with-a-long-name-'.repeat(2)}x.${'w'.repeat(60)}.example.org`;
  const tracker = await Tracker.start(binary, { settings: 'torrents = true', urls: [`udp://${host}:6969/announce`] });
  try {
    await tracker.announce(100);
    await until('a table', async () => (await get(`${tracker.admin}/`)).body.includes('<details>'));
    const tab = await open(browser, `${tracker.admin}/`, { width: 320, height: 900 });
    await tab.$eval('details', (it) => { it.open = true; });
    await check(tab, 'a phone of 320 px');
    await tab.$$eval('.big', (all) => all.forEach((it) => { it.innerText = '12,345,678'; }));
    await tab.$$eval('details td', (all) => all.forEach((it) => { it.innerText = '12,345,678'; }));
    const cut = await tab.$$eval('.big, details table', (all) => all.filter((it) => it.scrollWidth > it.clientWidth
      || it.getBoundingClientRect().right > it.closest('.card').getBoundingClientRect().right).map((it) => it.innerText));
    assert.deepEqual(cut, [], 'large numbers');
    await submit(tab, '.operator', { token: TOKEN });
    await submit(tab, 'form:has([value=torrent])', { info_hash: '41'.repeat(20) });
    assert.match(await text(tab, '.notice'), /Torrent 4141/);
    await check(tab, 'a torrent on a phone of 320 px');
    const lines = await tab.$$eval('.torrents code', (all) => all.map((it) => it.getClientRects().length));
    assert.ok(lines.length > 0 && lines.every((count) => count <= 2), `info hashes on ${lines} lines`);
    // The hash of a version 2 torrent: its first 40 digits are the name here. An error shows all of them.
    await submit(tab, 'form:has([value=torrent])', { info_hash: '41'.repeat(32) });
    assert.match(await text(tab, '.notice'), /Torrent (41){20}\n/);
    await check(tab, 'a torrent of version 2 on a phone of 320 px');
    await tab.$eval('form:has([value=torrent])', (it) => { it.noValidate = true; });
    await submit(tab, 'form:has([value=torrent])', { info_hash: `${'41'.repeat(31)}4x` });
    assert.match(await text(tab, '.notice'), /(41){31}4x[^]*40/);
    await check(tab, 'a wrong info hash of 64 digits on a phone of 320 px');
    await submit(tab, 'form:has([value=ban])', { target: 'W'.repeat(100) });
    assert.match(await text(tab, '.notice'), /WWW[^]*is not an address/);
    await check(tab, 'an error on a phone of 320 px');
    await whole(tab, 'state-narrow');
    await tab.close();
  } finally {
    tracker.stop();
  }
}

async function drains(browser) {
  const tracker = await Tracker.start(binary);
  try {
    const { status } = await get(`${tracker.admin}/api/v2/drain?token=${TOKEN}`, { method: 'POST', body: '{"seconds": 3600}' });
    assert.ok(status < 300, `drain: ${status}`);
    const said = await state(browser, tracker, 'draining');
    assert.match(said, /draining: clients are sent away/);
  } finally {
    tracker.stop();
  }
}

async function hasNoStore(browser) {
  const tracker = await Tracker.start(binary);
  const database = join(tracker.directory, 'data/records.db');
  const script = 'import sqlite3, sys; it = sqlite3.connect(sys.argv[1], isolation_level=None); it.execute("BEGIN EXCLUSIVE"); print("locked", flush=True); sys.stdin.read()';
  const lock = spawn('python3', ['-c', script, database], { stdio: ['pipe', 'pipe', 'inherit'] });
  try {
    await new Promise((resolve) => lock.stdout.once('data', resolve));
    const peer = `info_hash=${'A'.repeat(20)}&peer_id=-qB4650-000000000000&port=1`;
    await get(`${tracker.http}/announce?${peer}&left=1`);
    await get(`${tracker.http}/announce?${peer}&left=0&event=completed`);
    await until('an outage', async () => (await get(`${tracker.admin}/health/ready`)).status === 503);
    const said = await state(browser, tracker, 'without store');
    assert.match(said, /Needs attention/);
    assert.match(said, /Records sqlite cannot be used/);
    assert.doesNotMatch(await state(browser, tracker, 'without store public', tracker.http), /cannot be used/);
  } finally {
    lock.kill();
    tracker.stop();
  }
}

/** The screenshots of the docs. */
async function picturesOfAnHour(browser) {
  const tracker = await Tracker.start(binary, { hurry: true });
  let isOver = false;
  const life = tracker.liveAnHour(() => isOver);
  try {
    await Promise.race([life, wait(3_700_000 / HURRY)]);
    await until('an hour', async () => /5\d min ago/.test((await get(`${tracker.admin}/`)).body.toString()));
    await looks(browser, tracker);
  } finally {
    isOver = true;
    await life;
    tracker.stop();
  }
}

const tracker = await Tracker.start(binary);
let browser;
try {
  await tracker.announce(2500);
  await until('a census', async () => JSON.parse((await get(`${tracker.admin}/stats.json`)).body).peersAll > 500);
  await until('a chart', async () => (await get(`${tracker.admin}/`)).body.includes('class="area1"'));
  browser = await puppeteer.launch({ executablePath: '/usr/bin/chromium', args: ['--no-sandbox', '--disable-dev-shm-usage'] });
  await isSmall(tracker);
  await (forDocs ? picturesOfAnHour(browser) : looks(browser, tracker));
  await withoutScript(browser, tracker);
  await refreshes(browser, tracker);
  await hangs(browser, tracker);
  await operates(browser, tracker);
  await isPublic(browser, tracker);
  await byKeyboard(browser, tracker);
  await isEmpty(browser);
  await isLarge(browser);
  await isNarrow(browser);
  await drains(browser);
  await hasNoStore(browser);
  console.log('page: all checks passed');
} finally {
  await browser?.close();
  tracker.stop();
}
